//! Each script alone on a real server: seed keys, call the verb, read all keys back.
