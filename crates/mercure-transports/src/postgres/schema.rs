use tokio_postgres::Client;

use super::connection::explain;
use crate::store::{Outcome, newer};

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
    APPEND,
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

/// A function, so that the whole happens at the server, in one round trip, while the counter's lock is
/// held: each of its statements sees what was committed before it, and so what tells of a subscription
/// is found if it is there.
const APPEND: &str = "
CREATE OR REPLACE FUNCTION {schema}.append(ids text[], told boolean[], sizes bigint[], records bytea[])
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    sums {schema}.log;
    places bigint[];
    added bigint;
    added_published bigint;
    added_bytes bigint;
    newest text;
BEGIN
    SELECT * INTO sums FROM {schema}.log FOR UPDATE;
    WITH given AS (
        SELECT *, CASE WHEN is_told THEN (
            SELECT min(place) FROM {schema}.events
            WHERE md5(events.id) = md5(rows.id) AND events.id = rows.id
        ) END AS known
        FROM unnest(ids, told, sizes, records) WITH ORDINALITY
            AS rows (id, is_told, size, record, n)
    ), fresh AS (
        SELECT n, id, record, is_told, size, sums.head + row_number() OVER before AS place,
            sums.published + sum((NOT is_told)::int) OVER before - (NOT is_told)::int AS published,
            sums.bytes + sum(size) OVER before - size AS bytes
        FROM given WHERE known IS NULL WINDOW before AS (ORDER BY n)
    ), stored AS (
        INSERT INTO {schema}.events (place, id, published_before, bytes_before, record)
        SELECT place, id, published, bytes, record FROM fresh
    )
    SELECT array_agg(coalesce(known, place) ORDER BY n), count(place),
        count(place) FILTER (WHERE NOT given.is_told), coalesce(sum(fresh.size), 0),
        (array_agg(fresh.id ORDER BY place DESC) FILTER (WHERE place IS NOT NULL))[1]
    INTO places, added, added_published, added_bytes, newest
    FROM given LEFT JOIN fresh USING (n);
    UPDATE {schema}.log SET head = head + added, published = published + added_published,
        bytes = bytes + added_bytes, head_id = coalesce(newest, head_id);
    PERFORM pg_notify('{schema}', (sums.head + added)::text);
    RETURN coalesce(places, '{}');
END $$";

/// Brings the schema to this version; of several nodes that start at once, one after the other.
pub(super) async fn migrate(client: &mut Client, schema: &str) -> Outcome<()> {
    let version = apply(client, schema).await.map_err(|error| explain(&error))?;
    let known = MIGRATIONS.len() as i32;
    if version > known {
        return Err(newer("the log", version, known));
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
