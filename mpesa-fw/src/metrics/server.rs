//! `/metrics`, `/healthz`, `/readyz`.

use std::{net::TcpListener, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};

use super::AgentCollector;
use crate::agent::{Agent, beside};

#[derive(Clone)]
struct Shared {
    agent: Arc<Agent>,
    registry: Registry,
}

/// Serves until cancelled.
///
/// # Errors
/// The socket can't be used.
pub async fn serve(listener: TcpListener, agent: Arc<Agent>) -> anyhow::Result<()> {
    let registry = Registry::new();
    registry
        .register(Box::new(AgentCollector::new(Arc::clone(&agent))?))
        .context("metrics are not well-formed")?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Shared { agent, registry });
    listener.set_nonblocking(true).context("cannot use the socket for metrics")?;
    let listener =
        tokio::net::TcpListener::from_std(listener).context("cannot use the socket for metrics")?;
    axum::serve(listener, routes).await.context("the server for metrics ended")
}

async fn metrics(State(Shared { registry, .. }): State<Shared>) -> Response {
    let text = beside(move || TextEncoder::new().encode_to_string(&registry.gather())).await;
    match text {
        Ok(text) if !text.is_empty() => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the counts can't be read; the log says why\n")
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Ready: every interface that the policy names is protected.
async fn ready(State(Shared { agent, .. }): State<Shared>) -> Response {
    if beside(move || agent.is_ready()).await {
        return "ready\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "not every interface of the policy is protected: see `mpesa-fw status`\n",
    )
        .into_response()
}
