#!/bin/sh
# VictoriaLogs: posts the gateway's log files, as they are, to its JSON stream API. Fields keep their names.
#
#   sh victorialogs.sh            # to VICTORIALOGS_URL, else http://127.0.0.1:9428
#
# It posts whole files, and does not know what it posted before. To ship lines as they come, let an OpenTelemetry
# Collector (`export-config otelcol`) send them to /insert/opentelemetry/v1/logs instead.
#
# Then, for example:
#   curl "$VICTORIALOGS_URL/select/logsql/query" --data-urlencode 'query=request_id:="checkout-7" | sort by (seq)'
#   curl "$VICTORIALOGS_URL/select/logsql/query" --data-urlencode \
#     'query=_msg:="attempt.finished" | stats by (upstream) count() attempts, quantile(0.95, duration_ms) p95_ms'
set -eu

url="${VICTORIALOGS_URL:-http://127.0.0.1:9428}"
insert="$url/insert/jsonline?_time_field=timestamp&_msg_field=event&_stream_fields=service.instance.id"

for file in @LOG_DIR@/gateway-*.ndjson @LOG_DIR@/gateway-*.ndjson.gz; do
    [ -e "$file" ] || continue
    case "$file" in
        *.gz) gzip -dc "$file" ;;
        *) cat "$file" ;;
    esac | curl --fail --silent --show-error -X POST -H 'Content-Type: application/stream+json' -T - "$insert"
    echo "$file"
done
