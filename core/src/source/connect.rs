//! The connection to the deployment, and what is wrong when there is none.

use std::time::Duration;

use bson::{Document, Timestamp, doc};
use mongodb::Client;
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ServerAddress};

use crate::source::error::{SourceError, explain, one_line};
use crate::source::token::Timestamp64;

/// How long to look for a server when the URI does not say.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the driver's own monitor looks at each server, and how long a connection or such a look may take, when the URI does
/// not say. The driver clears the pool and interrupts what waits on its connections, checkpoint writes included, after both
/// together without an answer: 10 s, where its defaults would take 20.
const HEARTBEAT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A pooled connection that was not used for so long is not used again when the URI does not say: what stands between here and
/// the server may have forgotten it without a word.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// A deployment that answered and can have change streams.
pub struct Deployment {
    /// Pooled connections.
    pub client: Client,
    /// Its cluster time when it answered.
    pub now: Timestamp64,
}

/// Connects and asks the server what it is. `connections` is how many the pool must allow: each stream holds one while it
/// waits for the server, and with fewer a slow output's stream could keep the shared one waiting.
///
/// # Errors
/// [`SourceError::Unreachable`] and [`SourceError::Refused`] with what to do. A retry helps only if the cause goes away.
pub async fn connect(uri: &str, connections: u32) -> Result<Deployment, SourceError> {
    let mut options = ClientOptions::parse(uri)
        .await
        .map_err(|e| SourceError::Unreachable(format!("read source.uri: {}", one_line(&e))))?;
    options.app_name.get_or_insert_with(|| "tailwater".to_owned());
    options.server_selection_timeout.get_or_insert(SERVER_SELECTION_TIMEOUT);
    options.max_pool_size.get_or_insert(connections);
    options.heartbeat_freq.get_or_insert(HEARTBEAT);
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.max_idle_time.get_or_insert(IDLE_MAX);
    let hosts = options.hosts.clone();
    let set = options.repl_set_name.clone();
    let client = Client::with_options(options.clone())
        .map_err(|e| SourceError::Unreachable(format!("read source.uri: {}", one_line(&e))))?;
    let reply = client.database("admin").run_command(doc! { "hello": 1 }).await;
    let hello = match reply {
        Ok(hello) => hello,
        Err(error) if matches!(error.kind.as_ref(), ErrorKind::ServerSelection { .. }) => {
            return Err(SourceError::Unreachable(diagnose(&options, &hosts, set.as_deref()).await));
        }
        Err(error) => return Err(explain(&error, "connect to MongoDB")),
    };
    if hello.get_str("setName").is_err() && hello.get_str("msg").ok() != Some("isdbgrid") {
        return Err(SourceError::Unreachable(not_a_replica_set(hosts.first())));
    }
    let now = cluster_time(&hello).ok_or_else(|| {
        SourceError::Unreachable("the server tells no cluster time: is its replica set initiated?".to_owned())
    })?;
    Ok(Deployment { client, now })
}

/// The newest operation the answering node knows.
fn cluster_time(reply: &Document) -> Option<Timestamp64> {
    let own: Option<Timestamp> = reply.get_timestamp("operationTime").ok();
    let cluster = reply.get_document("$clusterTime").ok().and_then(|time| time.get_timestamp("clusterTime").ok());
    own.max(cluster).map(Timestamp64::from)
}

/// Why no server could be selected, in one line: each host is asked directly, because the driver's own message tells only that
/// none would do.
async fn diagnose(options: &ClientOptions, hosts: &[ServerAddress], wanted: Option<&str>) -> String {
    let mut reasons = Vec::new();
    for host in hosts.iter().take(8) {
        reasons.push(diagnose_host(options, host, wanted).await);
    }
    let within = options.server_selection_timeout.unwrap_or(SERVER_SELECTION_TIMEOUT);
    format!("connect to MongoDB: no usable server within {within:?}: {}", reasons.join("; "))
}

async fn diagnose_host(options: &ClientOptions, host: &ServerAddress, wanted: Option<&str>) -> String {
    if let ServerAddress::Tcp { host: name, port } = host {
        let target = (name.as_str(), port.unwrap_or(27017));
        if let Err(error) = tokio::net::lookup_host(target).await {
            return format!("no such host {name}: {error}; check source.uri");
        }
        let attempt = tokio::time::timeout(Duration::from_secs(3), tokio::net::TcpStream::connect(target)).await;
        match attempt {
            Err(_) => return format!("{host} does not answer within 3s; check the address and firewalls"),
            Ok(Err(error)) => return format!("cannot connect to {host}: {error}; is mongod running there?"),
            Ok(Ok(_)) => {}
        }
    }
    let mut direct = options.clone();
    direct.hosts = vec![host.clone()];
    direct.direct_connection = Some(true);
    direct.repl_set_name = None;
    direct.server_selection_timeout = Some(Duration::from_secs(3));
    let Ok(client) = Client::with_options(direct) else { return format!("{host} cannot be asked") };
    match client.database("admin").run_command(doc! { "hello": 1 }).await {
        Err(error) => format!("{host} does not answer as MongoDB: {}", one_line(&error)),
        Ok(hello) => match (hello.get_str("setName").ok(), wanted) {
            (None, _) if hello.get_str("info").is_ok() => {
                format!("{host} was started as a replica set but not initiated; run rs.initiate() once")
            }
            (None, _) => not_a_replica_set(Some(host)),
            (Some(name), Some(wanted)) if name != wanted => {
                format!("{host} belongs to replica set {name:?}, source.uri says {wanted:?}")
            }
            _ => format!("{host} is in the set, but no primary or readable member was found"),
        },
    }
}

fn not_a_replica_set(host: Option<&ServerAddress>) -> String {
    let host = host.map(ToString::to_string).unwrap_or_default();
    format!(
        "{host} is not a member of a replica set, and change streams need one: start mongod with --replSet rs0 and run \
         rs.initiate() once"
    )
}
