//! The admin API as a foreign page reaches it: with its own Host after DNS rebinding, or cross-site with its Origin.

use reqwest::header::{HOST, ORIGIN, REFERER};
use serde_json::Value;

use super::requests::{Clients, Requests};
use super::{AttackError, Target};

const FOREIGN: &str = "attacker.example";

pub(super) fn start(target: &Target) -> Result<Requests, AttackError> {
    let admin = target.admin.clone().ok_or(AttackError::Needs("--admin"))?;
    let (_, server) = target.http()?;
    let mut clients = Clients::new(server.ip())?;
    let base = admin.trim_end_matches('/').to_owned();
    Requests::start("admin", target.requests, move |mut turns, tally| async move {
        // What a page would have read before: the ids of live sessions.
        let sessions = sessions(&base).await;
        let mut number = 0;
        while let Some(due) = turns.next().await {
            for _ in 0..due {
                number += 1;
                let client = clients.next();
                let session = sessions.get(number % sessions.len().max(1)).cloned().unwrap_or("1".into());
                let request = match number / 2 % 4 {
                    0 => client.get(format!("{base}/api/v1/sessions?state=live")),
                    1 => client.get(format!("{base}/metrics")),
                    2 => client.delete(format!("{base}/api/v1/sessions/{session}")),
                    _ => client.post(format!("{base}/api/v1/sessions/{session}")),
                };
                let page = format!("http://{FOREIGN}");
                let request = match number % 2 {
                    0 => request.header(HOST, FOREIGN),
                    _ => request.header(ORIGIN, &page).header("sec-fetch-site", "cross-site"),
                };
                clients.spawn(&tally, request.header(REFERER, page), 0);
            }
        }
    })
}

/// The ids of the live sessions.
async fn sessions(base: &str) -> Vec<String> {
    let list = async {
        let answer = reqwest::get(format!("{base}/api/v1/sessions?state=live")).await.ok()?;
        serde_json::from_str::<Value>(&answer.text().await.ok()?).ok()
    };
    let list = list.await.unwrap_or_default();
    let list = list.as_array().or_else(|| list["sessions"].as_array()).cloned().unwrap_or_default();
    let id = |session: &Value| match &session["id"] {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    };
    list.iter().filter_map(id).collect()
}
