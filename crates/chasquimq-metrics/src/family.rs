//! Values by a label that is only known at run time: a bounded table, read without a lock.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What stands for every key that found no place.
pub(crate) const OTHER: &str = "other";

/// At most so many values by key; one more value, of [`OTHER`], serves all further keys.
///
/// Slots are written once and probed in line from the key's hash. The table is never more than
/// half full, so that a probe is short and always ends at an empty slot.
pub(crate) struct Family<V> {
    slots: Box<[OnceLock<Box<Slot<V>>>]>,
    most: usize,
    used: Mutex<usize>,
    full: AtomicBool,
    other: OnceLock<Box<V>>,
    hasher: RandomState,
}

struct Slot<V> {
    hash: u64,
    key: Box<str>,
    value: V,
}

impl<V> Family<V> {
    pub fn new(most: usize) -> Self {
        let slots = (most.max(1) * 2).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            most,
            used: Mutex::new(0),
            full: AtomicBool::new(most == 0),
            other: OnceLock::new(),
            hasher: RandomState::new(),
        }
    }

    /// The value of `key`; `make` makes it where there is none yet, or that of [`OTHER`].
    pub fn get(&self, key: &str, make: impl Fn(&str) -> V) -> &V {
        let hash = self.hasher.hash_one(key);
        // Before the look: a key that the full table lacks then is not just being admitted.
        let full = self.full.load(Ordering::Acquire);
        match self.find(hash, key) {
            Ok(value) => value,
            Err(_) if full => self.other.get_or_init(|| Box::new(make(OTHER))),
            Err(_) => self.admit(hash, key, make),
        }
    }

    fn admit(&self, hash: u64, key: &str, make: impl Fn(&str) -> V) -> &V {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match self.find(hash, key) {
            Ok(value) => value,
            Err(slot) if *used < self.most => {
                let slot =
                    slot.get_or_init(|| Box::new(Slot { hash, key: key.into(), value: make(key) }));
                *used += 1;
                self.full.store(*used == self.most, Ordering::Release);
                &slot.value
            }
            Err(_) => self.other.get_or_init(|| Box::new(make(OTHER))),
        }
    }

    /// The key's value, or the empty slot where it would be.
    fn find(&self, hash: u64, key: &str) -> Result<&V, &OnceLock<Box<Slot<V>>>> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at].get() {
                None => return Err(&self.slots[at]),
                Some(slot) if slot.hash == hash && *slot.key == *key => return Ok(&slot.value),
                Some(_) => at = (at + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn keys_beyond_the_bound_share_one_value() {
        let family = Family::new(3);
        for round in 0..2 {
            let seen: Vec<_> = ["a", "b", "c", "d", "e"]
                .map(|key| family.get(key, |key| format!("{key}{round}")).clone())
                .to_vec();
            assert_eq!(seen, ["a0", "b0", "c0", "other0", "other0"]);
        }
    }

    #[test]
    fn without_room_all_keys_share_one_value() {
        let family = Family::new(0);
        assert_eq!(family.get("a", ToOwned::to_owned), OTHER);
    }

    #[test]
    fn threads_that_race_agree_on_every_key() {
        let family: Family<AtomicU64> = Family::new(50);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for i in 0..5000 {
                        let value = family.get(&format!("key-{}", i % 50), |_| AtomicU64::new(0));
                        value.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        for i in 0..50 {
            let count = family.get(&format!("key-{i}"), |_| AtomicU64::new(0));
            assert_eq!(count.load(Ordering::Relaxed), 800);
        }
        assert!(family.other.get().is_none(), "fifty keys have room");
    }
}
