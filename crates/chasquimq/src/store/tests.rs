//! Each script alone on a real server: seed keys, call the verb, read all keys back. And what the
//! client library must not do to us.

mod dead;
mod delayed;
mod entries;
mod faults;
mod finishing;
mod intake;
mod link;
mod outage;
mod refusals;
mod rights;
mod sending;
mod settling;
mod support;
mod told;
mod trimming;
mod vectors;

use std::collections::BTreeSet;
use std::path::Path;

use super::scripts::FILES;

/// Where a test of script `x` is a function whose name begins with `x_`.
const SOURCES: &[&str] = &[
    include_str!("tests/dead.rs"),
    include_str!("tests/delayed.rs"),
    include_str!("tests/entries.rs"),
    include_str!("tests/finishing.rs"),
    include_str!("tests/intake.rs"),
    include_str!("tests/sending.rs"),
    include_str!("tests/settling.rs"),
];

#[test]
fn every_script_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/scripts");
    let there: BTreeSet<_> = folder
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".lua").expect("only scripts here").to_owned())
        .collect();
    let used: BTreeSet<_> = FILES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(there, used, "the folder against what the engine runs");
    for script in used {
        let test = format!("async fn {script}_");
        assert!(SOURCES.iter().any(|source| source.contains(&test)), "no test of {script}.lua");
    }
}
