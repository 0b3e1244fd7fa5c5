"""One example for the request and for each answer of every operation; tests hold them to the shapes."""

from __future__ import annotations

from typing import Any, Final

_ID: Final = "01980a3c-7c2e-7000-9d8b-2f6a51c0e4d7"

_HANDLER_TASK: Final[dict[str, Any]] = {
    "id": _ID,
    "state": "queued",
    "queue": "emails",
    "priority": "high",
    "run_at": "2026-03-01T08:00:00.250000Z",
    "created_at": "2026-03-01T08:00:00.250000Z",
    "attempt": 0,
    "max_attempts": 6,
    "timeout": "30s",
    "tags": {"customer": "4711"},
    "handler": "emails.welcome",
    "payload": {"to": "ada@example.com"},
    "retry": {"max_attempts": 6},
    "dedup": {"key": "welcome 4711", "until": "finished"},
}
# As changes answer it, whose answers may be kept.
_CHANGED_TASK: Final = {name: value for name, value in _HANDLER_TASK.items() if name != "payload"}
_HTTP_TASK: Final[dict[str, Any]] = {
    "id": "01980a3c-7c2f-7000-8a4e-90b1d6f7c3a2",
    "state": "retrying",
    "queue": "hooks",
    "priority": "normal",
    "run_at": "2026-03-01T08:00:04.100000Z",
    "created_at": "2026-03-01T08:00:00.250000Z",
    "attempt": 2,
    "max_attempts": 4,
    "timeout": "1m",
    "tags": {},
    "http": {"url": "https://example.com/hooks/order-paid"},
    "error": {"type": "http_status", "message": "the receiver answered 503"},
}
_QUEUE: Final[dict[str, Any]] = {
    "name": "emails",
    "state": "active",
    "paused": None,
    "draining": None,
    "pressure": None,
    "retry": {
        "max_attempts": 8,
        "max_age": "24h",
        "backoff": "exponential",
        "initial": "1s",
        "max": "300s",
        "factor": 2.0,
        "jitter": 0.2,
    },
    "timeout": "30s",
    "keep_history": "all",
    "max_depth": 100000,
    "max_age": None,
    "max_running": 20,
    "rate": {"limit": 100, "period": "1m", "burst": 10},
    "created_at": "2026-03-01T08:00:00Z",
    "updated_at": "2026-03-01T08:00:00Z",
}
_PAUSED_QUEUE: Final[dict[str, Any]] = {
    **_QUEUE,
    "state": "paused",
    "paused": {
        "since": "2026-03-01T09:00:00.120000Z",
        "by": "k7f3q0a9x2mt",
        "reason": "the mail provider is down",
        "until": "2026-03-01T11:00:00.120000Z",
    },
}
_DRAINING_QUEUE: Final[dict[str, Any]] = {
    **_QUEUE,
    "state": "draining",
    "draining": {"since": "2026-03-01T09:00:00.120000Z", "by": "k7f3q0a9x2mt"},
}
_OPERATION: Final[dict[str, Any]] = {
    "id": "01980a3c-9d10-7000-b1c2-6a0d43e5f798",
    "kind": "replay_dead_letters",
    "state": "running",
    "filter": {"error_type": "ConnectionError"},
    "matched": 0,
    "done": 0,
    "skipped": 0,
    "failed": 0,
    "created_at": "2026-03-01T08:00:00.250000Z",
    "created_by": "k3v9x2m7q4ab",
    "queue": "emails",
    "rate": 50.0,
}
_BATCH: Final[dict[str, Any]] = {
    "id": "01980a3c-7c2d-7000-8b1f-3d5e7a9c0b24",
    "state": "running",
    "tasks": 2,
    "pending": 2,
    "succeeded": 0,
    "failed": 0,
    "cancelled": 0,
    "expired": 0,
    "created_at": "2026-03-01T08:00:00.250000Z",
    "created_by": "k3v9x2m7q4ab",
    "closed_at": "2026-03-01T08:00:00.250000Z",
    "on_complete": {"queue": "reports", "handler": "reports.mail"},
    "on_failure": {"queue": "hooks", "http": {"url": "https://example.com/hooks/import-failed"}},
}
_BATCH_TASK: Final[dict[str, Any]] = {
    "id": _ID,
    "state": "queued",
    "queue": "imports",
    "priority": "normal",
    "run_at": "2026-03-01T08:00:00.250000Z",
    "created_at": "2026-03-01T08:00:00.250000Z",
    "attempt": 0,
    "max_attempts": 4,
    "timeout": "1m",
    "tags": {},
    "handler": "imports.page",
    "payload": {"page": 1},
    "batch": _BATCH["id"],
}
_MATCHES: Final = {"dry_run": True, "matched": 1250, "at_least": False}
_PURGE: Final[dict[str, Any]] = {
    **{name: value for name, value in _OPERATION.items() if name != "rate"},
    "kind": "purge_dead_letters",
    "filter": {"dead_before": "2026-02-01T00:00:00Z"},
}
_LEASE: Final = {"task_id": _ID, "lease_token": "7d3f2c1e-8a4b-4c5d-9e6f-0a1b2c3d4e5f"}
_OTHER_LEASE: Final = {"task_id": _HTTP_TASK["id"], "lease_token": "7d3f2c1e-8a4b-4c5d-9e6f-0a1b2c3d4e5f"}
_CANCELLED: Final = {"id": _ID, "state": "cancelled"}
_CALLED_BACK: Final = {"status": "ok", "task_id": "01980a3c-7c2f-7000-8a4e-90b1d6f7c3a2", "outcome": "succeeded"}

REQUESTS: Final[dict[str, Any]] = {
    "tasks_create": {
        "queue": "emails",
        "handler": "emails.welcome",
        "payload": {"to": "ada@example.com"},
        "priority": "high",
        "timeout": "30s",
        "retry": {"max_attempts": 6},
        "tags": {"customer": "4711"},
        "dedup": {"key": "welcome 4711", "until": "finished"},
    },
    "tasks_create_batch": {
        "tasks": [
            {
                "queue": "hooks",
                "http": {"url": "https://example.com/hooks/order-paid"},
                "payload": {"order": 17},
                "delay": "5m",
            },
            {"queue": "Hooks!", "handler": "audit"},
        ],
        "atomic": False,
    },
    "tasks_cancel": {"mode": "hard"},
    "tasks_patch": {"priority": "high", "run_at": "2026-03-01T09:00:00Z"},
    "tasks_run_now": {},
    "tasks_retry": {"payload": {"to": "ada@example.org"}},
    "operations_cancel_tasks": {"filter": {"tags": {"customer": "4711"}}, "mode": "hard"},
    "operations_purge_queue": {"filter": {"older_than": "2h"}},
    "operations_replay_dead_letters": {"filter": {"error_type": "ConnectionError"}, "rate": 50},
    "operations_purge_dead_letters": {"filter": {"dead_before": "2026-02-01T00:00:00Z"}},
    "operations_cancel": {},
    "batches_create": {
        "tasks": [
            {"queue": "imports", "handler": "imports.page", "payload": {"page": 1}},
            {"queue": "imports", "handler": "imports.page", "payload": {"page": 2}},
        ],
        "on_complete": _BATCH["on_complete"],
        "on_failure": _BATCH["on_failure"],
    },
    "batches_close": {},
    "batches_cancel": {"mode": "soft"},
    "queues_put": {
        "retry": {"max_attempts": 8},
        "timeout": "30s",
        "max_depth": 100000,
        "max_running": 20,
        "rate": {"limit": 100, "period": "1m", "burst": 10},
    },
    "queues_patch": {"timeout": "45s", "max_depth": None},
    "queues_pause": {"reason": "the mail provider is down", "for": "2h"},
    "queues_resume": {},
    "queues_drain": {},
    "runs_claim": {"handlers": ["emails.welcome"], "max": 10, "lease": "30s", "wait": "20s", "consumer": "mailer-1"},
    "runs_heartbeat": {"runs": [_LEASE, _OTHER_LEASE], "lease": "30s"},
    "runs_finish": {
        "runs": [
            {**_LEASE, "outcome": "succeeded", "result": {"message_id": "m-1"}},
            {
                **_OTHER_LEASE,
                "outcome": "failed",
                "error": {"type": "SmtpError", "message": "the server is busy"},
                "retry_in": "1m",
            },
        ]
    },
    "runs_release": {"runs": [_LEASE]},
    "callbacks_complete": {"result": {"pages": 12}},
    "callbacks_fail": {"error": {"type": "printer_jam", "message": "tray 2"}, "retry_in": "5m"},
    "callbacks_heartbeat": {"extend": "1m"},
}

ANSWERS: Final[dict[str, dict[int, Any]]] = {
    "tasks_create": {201: _HANDLER_TASK, 200: {**_CHANGED_TASK, "deduplicated": True}},
    "tasks_create_batch": {
        200: {
            "results": [
                {
                    "status": 201,
                    "task": {
                        "id": _ID,
                        "state": "scheduled",
                        "queue": "hooks",
                        "priority": "normal",
                        "run_at": "2026-03-01T08:05:00.250000Z",
                        "created_at": "2026-03-01T08:00:00.250000Z",
                        "attempt": 0,
                        "max_attempts": 4,
                        "timeout": "1m",
                        "tags": {},
                        "http": {"url": "https://example.com/hooks/order-paid"},
                    },
                },
                {
                    "status": 422,
                    "problem": {
                        "type": "urn:howdah:problem:validation",
                        "title": "The request is not valid",
                        "status": 422,
                        "code": "validation",
                        "detail": "/tasks/1/queue must match ^[a-z0-9][a-z0-9_.-]{0,127}$",
                        "retryable": False,
                        "request_id": "5f3a9c0e1b7d-2a",
                        "errors": [{"detail": "must match ^[a-z0-9][a-z0-9_.-]{0,127}$", "pointer": "/tasks/1/queue"}],
                    },
                },
            ]
        }
    },
    "tasks_list_page": {200: {"data": [_HTTP_TASK], "next_cursor": "c0RzV2lPd3JkYWhDdXJzb3IBmAo8fC9wAIpOkLHW98Oi"}},
    "tasks_get": {
        200: {
            **_HANDLER_TASK,
            "state": "succeeded",
            "attempt": 1,
            "finished_at": "2026-03-01T08:00:00.310000Z",
            "result": {"message_id": "m-1"},
        }
    },
    "tasks_explain": {
        200: {
            "id": _ID,
            "reasons": [
                {
                    "code": "behind",
                    "message": "17 due runs of its queue and priority come before it; 2 workers claim it, and hold 200 "
                    "runs at 200 slots",
                    "run_count": 17,
                }
            ],
        }
    },
    "tasks_delete": {200: _CANCELLED},
    "tasks_cancel": {200: {"id": _ID, "state": "running", "cancel_requested": "hard"}},
    "tasks_patch": {
        200: {**_CHANGED_TASK, "state": "scheduled", "run_at": "2026-03-01T09:00:00Z"},
    },
    "tasks_run_now": {200: _CHANGED_TASK},
    "tasks_retry": {
        200: _CHANGED_TASK,
        201: {
            **_CHANGED_TASK,
            "id": "01980a3c-9d11-7000-8f3e-11c0a2b4d6e8",
            "replayed_from": _ID,
        },
    },
    "operations_cancel_tasks": {
        200: _MATCHES,
        202: {
            **{name: value for name, value in _OPERATION.items() if name not in ("queue", "rate")},
            "kind": "cancel_tasks",
            "filter": {"tags": {"customer": "4711"}},
            "mode": "hard",
        },
    },
    "operations_purge_queue": {
        200: _MATCHES,
        202: {**_PURGE, "kind": "purge_queue", "filter": {"older_than": "2h"}},
    },
    "operations_replay_dead_letters": {200: _MATCHES, 202: _OPERATION},
    "operations_purge_dead_letters": {200: _MATCHES, 202: _PURGE},
    "operations_list_page": {200: {"data": [_OPERATION], "next_cursor": None}},
    "operations_get": {
        200: {
            **_OPERATION,
            "state": "done",
            "matched": 1250,
            "done": 1249,
            "skipped": 1,
            "finished_at": "2026-03-01T08:00:25.310000Z",
        }
    },
    "operations_cancel": {
        200: {
            **_OPERATION,
            "state": "cancelled",
            "matched": 500,
            "done": 500,
            "finished_at": "2026-03-01T08:00:10.020000Z",
        }
    },
    "batches_create": {
        201: {
            "batch": _BATCH,
            "tasks": [
                _BATCH_TASK,
                {**_BATCH_TASK, "id": "01980a3c-7c2e-7001-a1b2-c3d4e5f60718", "payload": {"page": 2}},
            ],
        }
    },
    "batches_list_page": {
        200: {
            "data": [
                {
                    **_BATCH,
                    "state": "complete",
                    "pending": 0,
                    "succeeded": 2,
                    "completed_at": "2026-03-01T08:00:09.870000Z",
                }
            ],
            "next_cursor": None,
        }
    },
    "batches_get": {
        200: {
            **_BATCH,
            "state": "complete",
            "pending": 0,
            "succeeded": 1,
            "failed": 1,
            "completed_at": "2026-03-01T08:00:09.870000Z",
        }
    },
    "batches_close": {200: _BATCH},
    "batches_cancel": {
        202: {
            **{name: value for name, value in _OPERATION.items() if name not in ("queue", "rate")},
            "kind": "cancel_tasks",
            "filter": {"batch": _BATCH["id"]},
            "mode": "soft",
        }
    },
    "dead_letters_list_page": {
        200: {
            "data": [
                {
                    "id": _ID,
                    "priority": "normal",
                    "reason": "attempts",
                    "attempt": 4,
                    "crashes": 0,
                    "created_at": "2026-03-01T08:00:00.250000Z",
                    "dead_at": "2026-03-01T08:00:09.870000Z",
                    "tags": {"customer": "4711"},
                    "fingerprint": "57f31a8b4aa10afb",
                    "handler": "emails.welcome",
                    "error": {"type": "ConnectionError", "message": "connection to 10.0.0.7:25 refused"},
                }
            ],
            "next_cursor": None,
        }
    },
    "dead_letters_list_groups": {
        200: {
            "data": [
                {
                    "fingerprint": "57f31a8b4aa10afb",
                    "count": 1249,
                    "first_dead_at": "2026-03-01T06:12:44.100000Z",
                    "last_dead_at": "2026-03-01T08:00:09.870000Z",
                    "last_task_id": _ID,
                    "error_type": "ConnectionError",
                    "error_message": "connection to 10.0.0.7:25 refused",
                }
            ],
            "group_count": 1,
            "looked_at": 1249,
            "is_complete": True,
        }
    },
    "logs_list_page": {
        200: {
            "data": [
                {
                    "claim_no": 1,
                    "seq": 1,
                    "level": "info",
                    "at": "2026-03-01T08:00:00.270000Z",
                    "message": "rendered",
                    "fields": {"pages": 12},
                },
                {
                    "claim_no": 1,
                    "seq": 2,
                    "level": "info",
                    "at": "2026-03-01T08:00:00.290000Z",
                    "message": "sending",
                    "progress": 0.5,
                },
            ],
            "next_cursor": None,
        }
    },
    "tasks_list_runs": {
        200: {
            "data": [
                {
                    "claim_no": 1,
                    "attempt": 1,
                    "outcome": "timed_out",
                    "is_final": False,
                    "queued_at": "2026-03-01T08:00:00.250000Z",
                    "worker": "worker-1.4242.9f3c",
                    "claimed_at": "2026-03-01T08:00:00.252000Z",
                    "finished_at": "2026-03-01T08:00:30.260000Z",
                    "duration_s": 30.004,
                    "response_status": None,
                    "error": {"type": "timeout", "message": "the handler took longer than 30s"},
                },
                {
                    "claim_no": 2,
                    "attempt": 2,
                    "outcome": "succeeded",
                    "is_final": True,
                    "queued_at": "2026-03-01T08:00:00.250000Z",
                    "worker": "worker-2.977.02be",
                    "claimed_at": "2026-03-01T08:00:31.300000Z",
                    "finished_at": "2026-03-01T08:00:31.380000Z",
                    "duration_s": 0.078,
                    "response_status": None,
                    "result": {"message_id": "m-1"},
                },
            ],
            "next_cursor": None,
        }
    },
    "results_get": {
        200: {
            "id": _ID,
            "state": "succeeded",
            "outcome": "succeeded",
            "attempt": 1,
            "finished_at": "2026-03-01T08:00:00.310000Z",
            "result": {"message_id": "m-1"},
        },
        202: {"id": _ID, "state": "running"},
    },
    "runs_claim": {
        200: {
            "runs": [
                {
                    **_LEASE,
                    "lease_expires_at": "2026-03-01T08:00:30.252000Z",
                    "deadline_at": "2026-03-01T08:00:30.252000Z",
                    "timeout": "30s",
                    "attempt": 1,
                    "claim_no": 1,
                    "queued_at": "2026-03-01T08:00:00.250000Z",
                    "handler": "emails.welcome",
                    "payload": {"to": "ada@example.com"},
                    "tags": {"customer": "4711"},
                }
            ]
        }
    },
    "runs_heartbeat": {
        200: {
            "results": [
                {"task_id": _ID, "status": "ok", "lease_expires_at": "2026-03-01T08:00:40.252000Z", "cancel": "soft"},
                {"task_id": _HTTP_TASK["id"], "status": "lost"},
            ]
        }
    },
    "runs_finish": {
        200: {
            "results": [
                {"task_id": _ID, "status": "ok", "state": "succeeded"},
                {
                    "task_id": _HTTP_TASK["id"],
                    "status": "ok",
                    "state": "retrying",
                    "run_at": "2026-03-01T08:01:20.252000Z",
                },
            ]
        }
    },
    "runs_release": {200: {"results": [{"task_id": _ID, "status": "ok", "state": "queued"}]}},
    "callbacks_complete": {200: _CALLED_BACK},
    "callbacks_fail": {200: {**_CALLED_BACK, "outcome": "failed", "retry_at": "2026-03-01T08:07:30.250000Z"}},
    "callbacks_heartbeat": {
        200: {
            "status": "ok",
            "task_id": "01980a3c-7c2f-7000-8a4e-90b1d6f7c3a2",
            "lease_expires_at": "2026-03-01T08:03:30Z",
            "deadline_at": "2026-03-01T09:00:00.310000Z",
        }
    },
    "queues_list_page": {200: {"data": [_QUEUE], "next_cursor": None}},
    "queues_get": {200: _QUEUE},
    "queues_put": {200: _QUEUE, 201: _QUEUE},
    "queues_patch": {200: {**_QUEUE, "timeout": "45s", "max_depth": None, "updated_at": "2026-03-01T09:30:00Z"}},
    "queues_delete": {200: {"name": "emails", "deleted": True}},
    "queues_pause": {200: {"changed": True, "queue": _PAUSED_QUEUE}},
    "queues_resume": {200: {"changed": True, "queue": _QUEUE}},
    "queues_drain": {200: {"changed": True, "queue": _DRAINING_QUEUE}},
    "queues_stats": {
        200: {
            "queue": "emails",
            "queued": 12,
            "queued_is_at_least": False,
            "scheduled": 10000,
            "scheduled_is_at_least": True,
            "retrying": 2,
            "retrying_is_at_least": True,
            "blocked": 0,
            "blocked_is_at_least": False,
            "running": 8,
            "running_is_at_least": False,
            "awaiting_callback": 0,
            "awaiting_callback_is_at_least": False,
            "dead_letters": 1,
            "dead_letters_is_at_least": False,
            "count_max": 10000,
            "oldest_age_s": 0.8,
            "last_minute": {"enqueued": 84, "succeeded": 83, "failed": 0, "retried": 1, "duration_s": 6.9},
            "last_5_minutes": {"enqueued": 418, "succeeded": 415, "failed": 0, "retried": 2, "duration_s": 34.4},
            "last_hour": {"enqueued": 5021, "succeeded": 4990, "failed": 1, "retried": 17, "duration_s": 412.5},
        }
    },
    "workers_list_page": {
        200: {
            "data": [
                {
                    "kind": "worker",
                    "name": "worker-1.4242.9f3c",
                    "state": "live",
                    "host": "worker-1",
                    "pid": 4242,
                    "version": "0.1.0",
                    "queues": ["*"],
                    "handlers": ["emails.welcome"],
                    "serves_http": True,
                    "concurrency": 100,
                    "lease_s": 15.0,
                    "started_at": "2026-03-01T07:00:00Z",
                    "heartbeat_at": "2026-03-01T08:00:00Z",
                    "stopping_at": None,
                    "stopped_at": None,
                }
            ],
            "next_cursor": None,
        }
    },
    "tenants_get_callback_secret": {
        200: {"tenant": "default", "callback_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="}
    },
    "tenants_ping": {200: {"tenant": "default"}},
    "health_healthz": {200: {"status": "ok"}},
    "health_readyz": {
        200: {"ready": True, "checks": {"stopping": "ok", "database": "ok", "loops": "ok"}, "warnings": {}},
        503: {
            "ready": False,
            "checks": {"stopping": "ok", "database": "connection refused", "loops": "ok"},
            "warnings": {},
        },
    },
}

# Answers that are not JSON of ours: media type and the beginning of an example.
TEXTS: Final[dict[str, tuple[str, str]]] = {
    "health_get_metrics": ("text/plain", 'howdah_tasks_enqueued_total{source="single"} 5021.0\n'),
    "health_get_openapi": ("application/json", '{"openapi": "3.1.0"}'),
    "health_get_docs": ("text/html", "<!doctype html>"),
}

# Which part of a request each problem is shown to point at.
FAULTS: Final[dict[str, list[dict[str, str]]]] = {
    "invalid_json": [{"detail": "unexpected end of data", "pointer": ""}],
    "json_too_deep": [{"detail": "must be nested at most 64 levels deep", "pointer": "/payload"}],
    "duplicate_key": [{"detail": "is given twice", "pointer": "/queue"}],
    "bad_parameter": [{"detail": "must be a whole number from 1 to 200", "parameter": "limit"}],
    "bad_cursor": [{"detail": "is not a cursor of this list; begin without one", "parameter": "cursor"}],
    "payload_too_large": [{"detail": "must be at most 262144 bytes", "pointer": "/payload"}],
    "unsupported_media_type": [{"detail": "must be application/json, in UTF-8", "header": "Content-Type"}],
    "validation": [{"detail": "must be critical, high, low or normal", "pointer": "/priority"}],
    "blocked_address": [
        {"detail": "must not point at a special address (loopback)", "pointer": "/http/url"},
    ],
    "dedup_conflict": [
        {"detail": f"is held by task {_ID}", "pointer": "/dedup/key"},
    ],
    "dedup_key_in_use": [{"detail": "is being taken by another transaction", "pointer": "/dedup/key"}],
    "batch_in_use": [{"detail": "is being closed by another transaction", "pointer": "/batch"}],
    "flow_key_in_use": [{"detail": "is being made by another transaction", "pointer": "/flow/key"}],
    "idempotency_key_reused": [{"detail": "was used before with another request", "header": "Idempotency-Key"}],
}
