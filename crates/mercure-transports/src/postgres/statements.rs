use tokio_postgres::{Client, Error, Statement};

/// Statements that a connection has prepared.
pub(super) struct Statements {
    pub(super) append: Statement,
    pub(super) read: Statement,
    pub(super) locate: Statement,
    pub(super) newest: Statement,
    pub(super) trim: Statement,
    pub(super) raise_floor: Statement,
    pub(super) measure: Statement,
    pub(super) renew: Statement,
    pub(super) note: Statement,
    pub(super) others: Statement,
    pub(super) entries: Statement,
    pub(super) claim: Statement,
    pub(super) bury: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client, schema: &str) -> Result<Self, Error> {
        let prepare = async |text: &str| client.prepare(&text.replace("{schema}", schema)).await;
        Ok(Self {
            append: prepare("SELECT {schema}.append($1, $2, $3, $4)").await?,
            read: prepare(READ).await?,
            locate: prepare(LOCATE).await?,
            newest: prepare("SELECT head, head_id FROM {schema}.log").await?,
            trim: prepare(TRIM).await?,
            raise_floor: prepare("UPDATE {schema}.log SET floor = $1 WHERE floor < $1").await?,
            measure: prepare(MEASURE).await?,
            renew: prepare(RENEW).await?,
            note: prepare(NOTE).await?,
            others: prepare(OTHERS).await?,
            entries: prepare("SELECT entry FROM {schema}.attendances WHERE node = $1").await?,
            claim: prepare(CLAIM).await?,
            bury: prepare(BURY).await?,
        })
    }
}

/// Both ends of the stretch are known beforehand, so no more is looked at than is returned.
const READ: &str = "
SELECT log.head, stretch.place, stretch.record
FROM {schema}.log LEFT JOIN LATERAL (
    SELECT place, bytes_before FROM {schema}.events
    WHERE place > coalesce($1::bigint, log.floor) ORDER BY place LIMIT 1
) AS first ON true LEFT JOIN LATERAL (
    SELECT place, record FROM {schema}.events
    WHERE place >= first.place AND place < first.place + $2
        AND bytes_before <= first.bytes_before + $3
    ORDER BY place
) AS stretch ON true
ORDER BY stretch.place";

/// The inner query keeps PostgreSQL from walking through the log in its order instead. An index on
/// the id itself would not take long ones.
const LOCATE: &str = "
SELECT place FROM (
    SELECT place FROM {schema}.events WHERE md5(id) = md5($1) AND id = $1 OFFSET 0
) AS found ORDER BY place LIMIT 1";

/// The sums grow with the place, so what is past the retention is at the beginning.
const TRIM: &str = "
WITH stale AS (
    SELECT max(place) AS through FROM {schema}.log, LATERAL (
        SELECT place, published_before, bytes_before, at FROM {schema}.events
        WHERE place > log.floor ORDER BY place LIMIT $4
    ) AS oldest
    WHERE log.published - published_before > $1 OR log.bytes - bytes_before > $2
        OR at < clock_timestamp() - $3::float8 * interval '1 second'
), dropped AS (
    DELETE FROM {schema}.events
    WHERE place > (SELECT floor FROM {schema}.log) AND place <= (SELECT through FROM stale)
    RETURNING place
)
SELECT count(*), max(place) FROM dropped";

const MEASURE: &str = "
SELECT coalesce(log.published - published_before, 0), coalesce(log.head + 1 - place, 0),
    coalesce(log.bytes - bytes_before, 0)
FROM {schema}.log LEFT JOIN LATERAL (
    SELECT place, published_before, bytes_before FROM {schema}.events
    WHERE place > log.floor ORDER BY place LIMIT 1
) AS oldest ON true";

/// No row for a node that another one has claimed.
const RENEW: &str = "
INSERT INTO {schema}.nodes (node, expires_at)
VALUES ($1, clock_timestamp() + $2::float8 * interval '1 second')
ON CONFLICT (node) DO UPDATE SET expires_at = excluded.expires_at
    WHERE nodes.claimed_until IS NULL
RETURNING xmax = 0";

/// Nothing is noted of a node that has no lease; a claim waits for the lock, or this for the claim.
const NOTE: &str = "
WITH kept AS (
    SELECT node FROM {schema}.nodes WHERE node = $1 AND claimed_until IS NULL FOR SHARE
), went AS (
    DELETE FROM {schema}.attendances USING kept
    WHERE attendances.node = kept.node AND subscriber = ANY ($2::bytea[])
), came AS (
    INSERT INTO {schema}.attendances
    SELECT kept.node, subscriber, entry
    FROM kept, unnest($3::bytea[], $4::text[]) AS rows (subscriber, entry)
    ON CONFLICT (node, subscriber) DO UPDATE SET entry = excluded.entry
), counted AS (
    UPDATE {schema}.roster SET version = version + 1 WHERE EXISTS (SELECT FROM kept)
)
SELECT EXISTS (SELECT FROM kept)";

const OTHERS: &str = "
SELECT version, entry FROM {schema}.roster
LEFT JOIN {schema}.attendances ON node <> $1";

const CLAIM: &str = "
UPDATE {schema}.nodes SET claimed_until = clock_timestamp() + $2::float8 * interval '1 second'
WHERE node = (
    SELECT node FROM {schema}.nodes
    WHERE node <> $1 AND expires_at < clock_timestamp()
        AND coalesce(claimed_until, '-infinity') < clock_timestamp()
    LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING node";

const BURY: &str = "
WITH gone AS (
    DELETE FROM {schema}.attendances WHERE node = $1
), counted AS (
    UPDATE {schema}.roster SET version = version + 1
)
DELETE FROM {schema}.nodes WHERE node = $1";
