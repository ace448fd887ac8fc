//! Dashboard and alerts speak of metrics that exist, and Prometheus understands them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use chasquimq_metrics::names::ALL;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../operations/dashboard.json");
const RULES: &str = include_str!("../../operations/rules.yml");

#[test]
fn promtool_accepts_the_alerts_and_their_tests() {
    for arguments in
        [&["check", "rules", "--lint=all", "rules.yml"][..], &["test", "rules", "rules.test.yml"]]
    {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(folder())
            .output()
            .expect("promtool is in Debian's package prometheus");
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && !told.contains("FAILED"), "{arguments:?}: {told}");
    }
}

#[test]
fn dashboard_and_alerts_name_only_metrics_that_exist() {
    let known: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    let mut named = BTreeSet::new();
    for text in [DASHBOARD, RULES] {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in text.split(|c| !is_part(c)).filter(|word| word.starts_with("chasquimq_")) {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix))
                .filter(|base| known.contains(base))
                .unwrap_or(word);
            assert!(known.contains(base), "{word}");
            named.insert(base);
        }
    }
    let unseen: Vec<_> = known.difference(&named).collect();
    assert_eq!(unseen, [&"chasquimq_retry_backoff_seconds"], "every other metric is used");
}

#[test]
fn panels_have_a_title_a_unit_and_a_place_of_their_own() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> = panels.iter().filter(|panel| panel["type"] == "row").collect();
    let titles: Vec<_> = rows.iter().map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["Overview", "Queue", "Workers", "Store"]);
    let mut cells = BTreeSet::new();
    for panel in panels {
        let place = &panel["gridPos"];
        let of = |side: &str| place[side].as_u64().unwrap();
        for (x, y) in
            (0..of("w")).flat_map(|x| (0..of("h")).map(move |y| (x, y))).collect::<Vec<_>>()
        {
            assert!(cells.insert((of("x") + x, of("y") + y)), "{} overlaps", panel["title"]);
        }
        assert!(of("x") + of("w") <= 24);
        if panel["type"] != "row" {
            assert!(panel["description"].is_string() && !expressions(panel).is_empty());
        }
    }
}

/// All expressions of the dashboard, its variables filled in.
pub fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let found = panels.iter().flat_map(expressions);
    found
        .map(|expression| expression.replace("$__rate_interval", "1m").replace("$queue", ".*"))
        .collect()
}

fn expressions(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("operations")
}
