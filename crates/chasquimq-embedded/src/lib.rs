//! A real Valkey or Redis server for development, shared by all processes of a user.
