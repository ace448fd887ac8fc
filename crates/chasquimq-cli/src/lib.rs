//! The chasqui command line.
