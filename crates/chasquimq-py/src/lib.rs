//! PyO3 binding of ChasquiMQ: converts and delegates.
