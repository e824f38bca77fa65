-- ClickHouse: the gateway's log as a table, and the questions that the log's own commands answer.
--
--   clickhouse local --path ./gateway-log --multiquery < clickhouse.sql
--
-- With a server, run the CREATE TABLE by clickhouse client, and fill it with
--   INSERT INTO gateway_log FROM INFILE '@LOG_DIR@/gateway-*.ndjson*' SETTINGS date_time_input_format = 'best_effort',
--     input_format_allow_errors_ratio = 0.01 FORMAT JSONEachRow;
-- Percentiles are quantile() here, which estimates; quantileExact() counts.

CREATE TABLE IF NOT EXISTS gateway_log
(
    "timestamp" DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    "level" LowCardinality(String),
    "event" LowCardinality(String),
    "schema" UInt8,
    "trace_id" String,
    "request_id" String,
    "span_id" String,
    "parent_span_id" String,
    "service.instance.id" LowCardinality(String),
    "service.version" LowCardinality(String),
    "process.pid" Nullable(UInt32),
    "seq" UInt64,
    "http.request.method" LowCardinality(String),
    "http.route" LowCardinality(String),
    "http.response.status_code" Nullable(UInt16),
    "url.path" String,
    "server.address" LowCardinality(String),
    "outcome" LowCardinality(String),
    "error.type" LowCardinality(String),
    "exception.type" LowCardinality(String),
    "exception.message" String,
    "exception.stacktrace" String,
    "duration_ms" Nullable(Float64),
    "start_offset_ms" Nullable(Float64),
    "page" LowCardinality(String),
    "calls" Nullable(UInt16),
    "calls_failed" Array(String),
    "attempts" Nullable(UInt16),
    "complete" Nullable(Bool),
    "bytes_out" Nullable(UInt64),
    "body_bytes" Nullable(UInt64),
    "upstreams" Array(String),
    "upstream" LowCardinality(String),
    "call" LowCardinality(String),
    "attempt" Nullable(UInt16),
    "kind" LowCardinality(String),
    "sent" Nullable(Bool),
    "conn" LowCardinality(String),
    "wait_ms" Nullable(Float64),
    "queued_ms" Nullable(Float64),
    "open_ms" Nullable(Float64),
    "out_ms" Nullable(Float64),
    "reason" String,
    "because" LowCardinality(String),
    "leader" LowCardinality(String),
    "leader.trace_id" String,
    "from" LowCardinality(String),
    "to" LowCardinality(String),
    "logger" LowCardinality(String),
    "message" String,
    "count" Nullable(UInt64),
    "waiting" Nullable(UInt64),
    "sink" LowCardinality(String),
    "action" LowCardinality(String),
    "client.address" String
)
ENGINE = MergeTree
PARTITION BY toDate("timestamp")
ORDER BY ("event", "timestamp");

INSERT INTO gateway_log
SELECT * FROM file('@LOG_DIR@/gateway-*.ndjson*', JSONEachRow)
SETTINGS date_time_input_format = 'best_effort', input_format_null_as_default = 1, input_format_allow_errors_ratio = 0.01;

-- stats: every upstream's attempts.
SELECT upstream, count(*) AS attempts, round(count(*) FILTER (WHERE outcome = 'failed') / count(*), 4) AS failed_share,
    round(quantile(0.5)(duration_ms), 1) AS p50_ms, round(quantile(0.95)(duration_ms), 1) AS p95_ms,
    round(quantile(0.99)(duration_ms), 1) AS p99_ms, countIf(kind = 'retry') AS retries
FROM gateway_log WHERE event = 'attempt.finished' GROUP BY upstream ORDER BY upstream;

-- stats --by minute: requests.
SELECT toStartOfMinute("timestamp") AS minute, count(*) AS requests, countIf(outcome = 'failed') AS failed,
    countIf(outcome = 'partial') AS partial, round(quantile(0.95)(duration_ms), 1) AS p95_ms
FROM gateway_log WHERE event = 'request.finished' GROUP BY minute ORDER BY minute;

-- errors: what failed, how often, since when.
SELECT upstream, "error.type" AS error, count(*) AS times, min("timestamp") AS first, max("timestamp") AS last,
    any(request_id) AS example
FROM gateway_log WHERE event = 'attempt.finished' AND outcome = 'failed' GROUP BY upstream, error ORDER BY times DESC;

-- trace: the slowest request, step by step.
SELECT event, call, attempt, outcome, "error.type" AS error, start_offset_ms, duration_ms
FROM gateway_log
WHERE trace_id = (SELECT trace_id FROM gateway_log WHERE event = 'request.finished' ORDER BY duration_ms DESC LIMIT 1)
ORDER BY seq;

-- doctor: numbers missing between a process's first and last line.
SELECT "service.instance.id" AS process, max(seq) - min(seq) + 1 - count(*) AS missing
FROM gateway_log GROUP BY process ORDER BY process;
