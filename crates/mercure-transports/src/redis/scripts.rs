//! What happens as a whole or not at all.
//!
//! Numbers become text by `%.0f`: Lua's own way would round them from 14 digits on.

use redis::Script;

pub(super) struct Scripts {
    pub(super) open: Script,
    pub(super) append: Script,
    pub(super) read: Script,
    pub(super) trim: Script,
    pub(super) measure: Script,
    pub(super) renew: Script,
    pub(super) note: Script,
    pub(super) others: Script,
    pub(super) claim: Script,
    pub(super) bury: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let with = |head: &str, body: &str| Script::new(&format!("{head}\n{body}"));
        Self {
            open: Script::new(OPEN),
            append: with(LOG, APPEND),
            read: with(LOG, READ),
            trim: with(LOG, TRIM),
            measure: with(LOG, "return measured(0)"),
            renew: with(ROSTER, RENEW),
            note: with(ROSTER, NOTE),
            others: with(ROSTER, OTHERS),
            claim: with(ROSTER, CLAIM),
            bury: with(ROSTER, BURY),
        }
    }
}

/// The format of the log; this one if it is new.
const OPEN: &str = r"
redis.call('HSETNX', KEYS[1], 'format', ARGV[1])
return tonumber(redis.call('HGET', KEYS[1], 'format'))
";

/// `published` and `bytes` add up over the whole log; each entry holds what they were before it, so
/// that any stretch is measured by its ends.
const LOG: &str = r"
local log, ids, duplicates, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function text(number) return string.format('%.0f', number) end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local sums = redis.call('HMGET', meta, 'head', 'published', 'bytes')
local head, published, bytes =
    tonumber(sums[1] or 0), tonumber(sums[2] or 0), tonumber(sums[3] or 0)
local function place_of(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function fields_of(entry)
    local fields = {}
    for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
    return fields
end
local function measured(dropped)
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if not oldest then return {dropped, 0, 0, 0} end
    local fields = fields_of(oldest)
    return {dropped, published - tonumber(fields.p), redis.call('XLEN', log),
        bytes - tonumber(fields.b)}
end
";

/// An id that is there already keeps its earliest place; later ones wait in a sorted set. What tells
/// of a subscription is told once: a node that got no answer sends it again, and the first one may
/// still have been on its way.
const APPEND: &str = r"
local places = {}
for at = 2, 1 + ARGV[1] * 4, 4 do
    local id, counted = ARGV[at], ARGV[at + 1]
    local known = counted == '0' and redis.call('HGET', ids, id)
    if known then
        table.insert(places, tonumber(known))
    else
        local place = text(head + 1)
        redis.call('XADD', log, place .. '-0', 'r', ARGV[at + 3], 'i', id,
            'p', text(published), 'b', text(bytes), 't', text(now))
        if redis.call('HSETNX', ids, id, place) == 0 then
            redis.call('ZADD', duplicates, 0, id .. '\0' .. string.format('%016.0f', head + 1))
        end
        redis.call('HSET', meta, 'head_id', id)
        head = head + 1
        published = published + tonumber(counted)
        bytes = bytes + tonumber(ARGV[at + 2])
        table.insert(places, head)
    end
end
redis.call('HSET', meta, 'head', text(head), 'published', text(published), 'bytes', text(bytes))
return places
";

const READ: &str = r"
local begin, most, room = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local found, size = {}, 0
while #found < most do
    local page = redis.call('XRANGE', log, begin, '+', 'COUNT', math.min(32, most - #found))
    for _, entry in ipairs(page) do
        local record = entry[2][2]
        size = size + #record
        if #found > 0 and size > room then return {head, found} end
        table.insert(found, {entry[1], record})
    end
    if #page < 32 then break end
    begin = text(place_of(page[#page]) + 1) .. '-0'
end
return {head, found}
";

const TRIM: &str = r"
local keep, room, age, most =
    tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local function forget(id, place)
    if tonumber(redis.call('HGET', ids, id) or -1) ~= place then return end
    local later = redis.call('ZRANGEBYLEX', duplicates,
        '[' .. id .. '\0', '(' .. id .. '\1', 'LIMIT', 0, 1)[1]
    if later then
        redis.call('HSET', ids, id, text(tonumber(string.sub(later, #id + 2))))
        redis.call('ZREM', duplicates, later)
    else
        redis.call('HDEL', ids, id)
    end
end
local dropped, count = 0, 1
while dropped < most do
    local page, through = redis.call('XRANGE', log, '-', '+', 'COUNT', count), nil
    for _, entry in ipairs(page) do
        local fields = fields_of(entry)
        if published - tonumber(fields.p) <= keep and bytes - tonumber(fields.b) <= room
            and (age < 0 or tonumber(fields.t) >= now - age) then
            break
        end
        through = place_of(entry)
        forget(fields.i, through)
        dropped = dropped + 1
    end
    if not through then break end
    redis.call('XTRIM', log, 'MINID', text(through + 1) .. '-0')
    count = 64
end
return measured(dropped)
";

/// A node is known as long as it is in `nodes`, by the time at which its lease ends. Its first
/// argument is what the names of nodes' keys begin with.
const ROSTER: &str = r"
local nodes, claims, meta, prefix, node = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function ends_at(lease) return string.format('%.0f', now + tonumber(lease)) end
local function is_kept()
    return redis.call('ZSCORE', nodes, node) and redis.call('HEXISTS', claims, node) == 0
end
";

const RENEW: &str = r"
if redis.call('HEXISTS', claims, node) == 1 then return false end
local kept = is_kept() and 1 or 0
redis.call('ZADD', nodes, ends_at(ARGV[3]), node)
return kept
";

const NOTE: &str = r"
if not is_kept() then return 0 end
for at = 3, #ARGV, 2 do
    if ARGV[at + 1] == '' then
        redis.call('HDEL', prefix .. node, ARGV[at])
    else
        redis.call('HSET', prefix .. node, ARGV[at], ARGV[at + 1])
    end
end
redis.call('HINCRBY', meta, 'roster', 1)
return 1
";

const OTHERS: &str = r"
local found = {}
for _, other in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    if other ~= node then
        for _, entry in ipairs(redis.call('HVALS', prefix .. other)) do
            table.insert(found, entry)
        end
    end
end
return {tonumber(redis.call('HGET', meta, 'roster') or 0), found}
";

const CLAIM: &str = r"
for _, other in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', '(' .. ends_at(0))) do
    local claimed = tonumber(redis.call('HGET', claims, other) or 0)
    if other ~= node and claimed <= now then
        redis.call('HSET', claims, other, ends_at(ARGV[3]))
        return {other, redis.call('HVALS', prefix .. other)}
    end
end
return false
";

const BURY: &str = r"
redis.call('ZREM', nodes, node)
redis.call('HDEL', claims, node)
redis.call('DEL', prefix .. node)
redis.call('HINCRBY', meta, 'roster', 1)
return 1
";
