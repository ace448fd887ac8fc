//! A primary that Sentinels watch is killed, and then its successor stopped: nothing is lost.

use chasquimq_testkit::{Sentinels, Server};

use crate::load::Load;
use crate::remains::Baseline;

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_loses_nothing() {
    survives(Server::kill9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_falls_silent_loses_nothing() {
    survives(Server::stop_signal).await;
}

async fn survives(trouble: impl Fn(&Server)) {
    let sentinels = Sentinels::start().await;
    let baseline = Baseline::of(sentinels.primary().await).await;
    let load = Load::connect(&sentinels.url(), "q").await;
    let story = async {
        load.goes_on().await;
        let primary = sentinels.primary().await;
        trouble(primary);
        load.goes_on().await;
        assert_ne!(sentinels.primary().await.port(), primary.port());
    };
    tokio::select! {
        () = load.run() => unreachable!("it adds for ever"),
        () = story => {}
    }
    load.ends(sentinels.primary().await, &baseline).await;
}
