//! Background-job queue on Redis and Valkey: the engine.
