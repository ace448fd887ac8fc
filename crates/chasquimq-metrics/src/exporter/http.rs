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
        "/livez" => health(state, "its loops stand still", Probe::live),
        "/readyz" if state.probes().is_empty() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "no worker runs in this process\n")
        }
        "/readyz" => health(state, "it claims no jobs", Probe::ready),
        "/scale" => scale(state, request.uri().query().unwrap_or_default()).await,
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /livez, /readyz and /scale?queue=NAME\n",
        ),
    }
}

/// 200, or 503 with a line for each worker that is not as it should be.
fn health(state: &State, fault: &str, is_well: impl Fn(&dyn Probe) -> bool) -> Answer {
    let probes = state.probes();
    let faults: Vec<_> = probes
        .iter()
        .filter(|probe| !is_well(&***probe))
        .map(|probe| format!("worker of queue {}: {fault}\n", probe.queue()))
        .collect();
    if faults.is_empty() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, faults.concat())
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
        let unknown = format!("no worker of queue {queue:?} runs here; there are {known:?}\n");
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
