use mercure_engine::TransportError;
use tokio_postgres::Client;

use super::connection::explain;
use crate::store::Outcome;

/// How to get from each version to the next one; the version is how many were applied.
const MIGRATIONS: &[&str] = &[
    // `published` and `bytes` add up over the whole log, so that a stretch is measured by its ends.
    // Every event up to `floor` was dropped.
    "CREATE TABLE {schema}.log (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        head bigint NOT NULL DEFAULT 0,
        head_id text,
        published bigint NOT NULL DEFAULT 0,
        bytes bigint NOT NULL DEFAULT 0,
        floor bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 10);
    INSERT INTO {schema}.log DEFAULT VALUES;
    CREATE TABLE {schema}.events (
        place bigint PRIMARY KEY,
        id text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        published_before bigint NOT NULL,
        bytes_before bigint NOT NULL,
        record bytea NOT NULL
    ) WITH (autovacuum_vacuum_scale_factor = 0.05);
    CREATE INDEX events_by_id ON {schema}.events (md5(id), place);",
    "CREATE TABLE {schema}.nodes (
        node text PRIMARY KEY,
        expires_at timestamptz NOT NULL,
        claimed_until timestamptz
    );
    CREATE TABLE {schema}.attendances (
        node text NOT NULL,
        subscriber bytea NOT NULL,
        entry text NOT NULL,
        PRIMARY KEY (node, subscriber)
    );
    CREATE TABLE {schema}.roster (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        version bigint NOT NULL DEFAULT 0
    );
    INSERT INTO {schema}.roster DEFAULT VALUES;",
];

/// Brings the schema to this version; of several nodes that start at once, one after the other.
pub(super) async fn migrate(client: &mut Client, schema: &str) -> Outcome<()> {
    let version = apply(client, schema).await.map_err(|error| explain(&error))?;
    let known = MIGRATIONS.len() as i32;
    if version > known {
        return Err(TransportError::Refused(format!(
            "the log was written by a newer version of the hub (format {version}, this one knows \
             up to {known}); update the hub, or choose another namespace"
        )));
    }
    Ok(())
}

/// Returns the version that was found.
async fn apply(client: &mut Client, schema: &str) -> Result<i32, tokio_postgres::Error> {
    let change = client.transaction().await?;
    change.execute("SELECT pg_advisory_xact_lock(hashtext($1))", &[&schema]).await?;
    let exists = "SELECT to_regclass($1::text || '.format') IS NOT NULL";
    if !change.query_one(exists, &[&schema]).await?.get::<_, bool>(0) {
        let create = format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE TABLE {schema}.format (version integer NOT NULL);
             INSERT INTO {schema}.format VALUES (0)"
        );
        change.batch_execute(&create).await?;
    }
    let found = format!("SELECT version FROM {schema}.format");
    let version: i32 = change.query_one(&found, &[]).await?.get(0);
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
        change.batch_execute(&migration.replace("{schema}", schema)).await?;
        change.batch_execute(&format!("UPDATE {schema}.format SET version = version + 1")).await?;
    }
    change.commit().await?;
    Ok(version)
}
