//! Throw-away Redis and Valkey servers for the tests.
