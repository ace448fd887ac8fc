//! Requests and their answers.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::probe::{BoxError, Probe, Scale};
use super::state::State;

/// How long a worker may take to tell its queue's load.
const SCALE: Duration = Duration::from_secs(5);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

type Answer = Response<Full<Bytes>>;

pub(super) async fn respond<B>(request: &Request<B>, state: &State) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => answer(StatusCode::OK, METRICS, state.render()),
        "/livez" => health(state, stuck, Probe::live),
        "/readyz" if state.probes().is_empty() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "no worker runs in this process\n")
        }
        "/readyz" => health(state, unready, Probe::ready),
        "/scale" => scale(state, request.uri().query().unwrap_or_default()).await,
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /livez, /readyz and /scale?queue=NAME\n",
        ),
    }
}

/// 200, or 503 with a line for each probe that is not as it should be.
fn health(
    state: &State,
    fault: impl Fn(&dyn Probe) -> String,
    is_well: impl Fn(&dyn Probe) -> bool,
) -> Answer {
    let probes = state.probes();
    let probes = probes.iter().map(|probe| &**probe);
    let faults: Vec<_> = probes.filter(|probe| !is_well(*probe)).map(fault).collect();
    if faults.is_empty() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, faults.concat())
    }
}

fn stuck(probe: &dyn Probe) -> String {
    format!("worker of queue {}: its loops stand still\n", probe.queue())
}

fn unready(probe: &dyn Probe) -> String {
    let queue = probe.queue();
    if probe.is_worker() {
        format!("worker of queue {queue}: it claims no jobs\n")
    } else {
        format!("queue {queue}: it cannot be counted\n")
    }
}

async fn scale(state: &State, query: &str) -> Answer {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, queue)) = pairs.find(|(key, _)| key == "queue") else {
        return text(StatusCode::BAD_REQUEST, "which queue? ask for /scale?queue=NAME\n");
    };
    let probes = state.probes();
    let Some(probe) = probes.iter().find(|probe| probe.queue() == queue) else {
        let known: Vec<_> = probes.iter().map(|probe| probe.queue()).collect();
        let unknown = format!("queue {queue:?} is not watched here; there are {known:?}\n");
        return text(StatusCode::NOT_FOUND, unknown);
    };
    match load(&**probe).await {
        Ok(Scale { backlog, oldest_age, inflight }) => {
            let age = oldest_age.as_secs_f64();
            let json = format!(
                "{{\"backlog\":{backlog},\"oldest_age_s\":{age},\"inflight\":{inflight}}}\n"
            );
            answer(StatusCode::OK, JSON, json)
        }
        Err(error) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the load of queue {queue:?} is not known: {error}\n"),
        ),
    }
}

async fn load(probe: &dyn Probe) -> Result<Scale, BoxError> {
    timeout(SCALE, probe.scale())
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", SCALE.as_secs()).into()))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, TEXT, body)
}

fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
