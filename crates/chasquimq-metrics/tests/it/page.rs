//! The Rust snippets of the documentation's page compile and run as they are printed, imports
//! included, in a crate that is no part of the workspace.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chasquimq_testkit::{Server, eventually};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::samples;

/// A build from nothing on a slow machine.
const BUILD: Duration = Duration::from_mins(10);
const RUN: Duration = Duration::from_mins(1);
/// As the page has it.
const PORT: u16 = 9090;

const PROGRAM: &str = include_str!("../page/program.rs");
const SNIPPETS: [(&str, &str); 2] = [
    ("implement_metrics_sink", include_str!("../page/implement_metrics_sink.rs")),
    ("prometheus_adapter", include_str!("../page/prometheus_adapter.rs")),
];

#[tokio::test]
async fn the_page_s_snippets_compile_and_run_as_printed() {
    let program = build().await;
    let free = async || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).is_ok();
    eventually("the page's port 9090 is free", RUN, free).await;
    let server = Server::start().await;
    let output = said(Command::new(program).arg(server.url()), RUN).await;
    check_the_log(&output);
    check_the_metrics(output.split_once("\r\n\r\n").expect("the metrics over HTTP").1);
}

fn check_the_log(output: &str) {
    for (line, times) in [
        ("INFO job ok e=JobOutcome { kind: Ok, attempt: 1, ", 1),
        ("INFO job ok e=JobOutcome { kind: Ok, attempt: 2, ", 1),
        ("WARN job err e=JobOutcome { kind: Err, attempt: 1, ", 1),
        ("ERROR job panic e=JobOutcome { kind: Panic, attempt: 1, ", 1),
        ("WARN dlq route e=DlqRouted { reason: Unrecoverable, attempt: 1, ", 1),
        ("INFO ", 2),
        ("WARN ", 2),
        ("ERROR ", 1),
    ] {
        let told = output.lines().filter(|told| told.starts_with(line)).count();
        assert_eq!(told, times, "{line}: {output}");
    }
}

fn check_the_metrics(exposition: &str) {
    let metrics = samples(exposition);
    for (series, value) in [
        ("jobs_completed_total{queue=\"emails\"}", 2.0),
        ("jobs_failed_total{kind=\"error\",queue=\"emails\"}", 1.0),
        ("jobs_failed_total{kind=\"panic\",queue=\"emails\"}", 1.0),
        ("dlq_routed_total{queue=\"emails\",reason=\"unrecoverable\"}", 1.0),
        ("handler_duration_seconds_count{queue=\"emails\"}", 4.0),
        ("retry_backoff_seconds_count{queue=\"emails\"}", 1.0),
        ("promoter_depth{queue=\"emails\"}", 0.0),
        ("promoter_oldest_lag_seconds{queue=\"emails\"}", 0.0),
    ] {
        assert_eq!(metrics.get(&format!("chasquimq_{series}")), Some(&value), "{exposition}");
    }
}

/// Writes the crate and builds it with what the workspace has downloaded.
async fn build() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (crates, root) = (own.parent().unwrap(), own.ancestors().nth(2).unwrap());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    std::fs::write(folder.join("Cargo.toml"), manifest(crates)).unwrap();
    std::fs::write(folder.join("src/main.rs"), program()).unwrap();
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--offline"]).current_dir(&folder).env("CARGO_TARGET_DIR", target);
    // What cargo tells this test of its own package would make it build dependencies anew.
    let of_this_package =
        |name: &str| name.starts_with("CARGO_PKG_") || name.contains("_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_this_package) {
            build.env_remove(name);
        }
    }
    said(&mut build, BUILD).await;
    target.join("debug").join("page")
}

fn manifest(crates: &Path) -> String {
    let crates = crates.display();
    format!(
        r#"
        [package]
        name = "page"
        edition = "2024"

        [workspace]

        [dependencies]
        chasquimq.path = "{crates}/chasquimq"
        chasquimq-metrics.path = "{crates}/chasquimq-metrics"
        metrics-exporter-prometheus = {{ version = "0.18", default-features = false, features = ["http-listener"] }}
        tokio = {{ version = "1", features = ["macros", "rt-multi-thread"] }}
        tokio-util = "0.7"
        tracing = "0.1"

        [profile.dev]
        debug = "line-tables-only"
        "#
    )
}

fn program() -> String {
    SNIPPETS.iter().fold(PROGRAM.to_owned(), |program, (name, snippet)| {
        let place = format!("// SNIPPET {name}\n");
        assert!(program.contains(&place), "{name}");
        program.replace(&place, snippet)
    })
}

/// Runs a command that must succeed: what it said on stdout.
async fn said(command: &mut Command, within: Duration) -> String {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(within, ended).await.expect("it ends in time").unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}
