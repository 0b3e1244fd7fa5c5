/* A queue's max_running: claims that lock the queue's row, count in a second statement, and claim what is left.
 *
 * Stands for sql/functions/claim_limited.sql (the locks of queues, and queue_room), sql/queries/run/claim.sql, which
 * passes by queues that have limits, and sql/functions/set_queue.sql.
 *
 * Promises, by the flag that is set where one is broken:
 *   over_limit      after a claim that took runs, no more run than max_running says, but for what a claim took that was
 *                   under way when the queue got its first limit
 *   ltl drains      every run ends: no crash takes a slot away
 *
 * check: holds
 * check: holds with LIMIT=1, BATCH=1
 * check: holds with LOWERED
 * check: holds with UNLIMITED_AT_FIRST
 * check: holds ltl drains
 * check: holds ltl drains with LOWERED
 * check: COUNT_IN_THE_LOCKING_STATEMENT breaks over_limit
 * check: COUNT_WITHOUT_LOCK breaks over_limit
 * check: LOCK_IN_A_TRANSACTION_OF_ITS_OWN breaks over_limit
 * check: LIMIT_READ_BEFORE_THE_LOCK breaks over_limit with LOWERED
 * check: CLAIM_OF_ONE_MORE breaks over_limit
 * check: PLAIN_CLAIM_OF_A_LIMITED_QUEUE breaks over_limit
 * check: CLAIM_AFTER_THE_COMMIT breaks over_limit
 * check: SLOTS_COUNTED_IN_A_ROW breaks ltl drains with LIMIT=1
 *
 * Abstractions: runs are all alike, so each is a number in `waiting`, `running` or `ended`. What a transaction has
 * written is seen by others when it commits; a statement sees what was committed when it began, which for one that
 * waits for a lock is before the wait. Counting in the statement that locks (or in one transaction that keeps its
 * snapshot) is therefore a mutant: measured on PostgreSQL, a limit of 10 became 20.
 * Runs that are locked are passed by (SKIP LOCKED), so a claim may take fewer than there are. A queue whose lock is not
 * had within 50 ms is left out; that claim takes nothing, and the worker comes again. A run whose receiver owes the
 * outcome counts as `running`. A rate goes through the same lock, and is counted in the queue's own row.
 * UNLIMITED_AT_FIRST adds plain claims, which lock nothing but runs and see in their snapshot whether there is a limit.
 */

#ifndef LIMIT
#define LIMIT 2
#endif
#ifndef BATCH
#define BATCH 2
#endif
#define RUNS 4

byte max_running = LIMIT;   /* the row of `queues` */
#ifdef UNLIMITED_AT_FIRST
bool is_limited = false;
#else
bool is_limited = true;
#endif
byte plain_count = 0;       /* plain claims that have committed since the queue has a limit */
byte queue_lock = 0;        /* the transaction that holds it */
byte waiting = RUNS, running = 0, ended = 0;
byte slots = 0;             /* of the mutant that keeps a counter */

byte kills = 1, retries = 1, rollbacks = 1, skips = 1;

bool over_limit;
#define PROMISE(flag, condition) if :: !(condition) -> flag = true; assert(!flag) :: else fi
#define LEAST(a, b) ((a) < (b) -> (a) : (b))

#ifdef SLOTS_COUNTED_IN_A_ROW
#define IN_USE slots
inline take_up() { slots = slots + take }
inline give_back() { slots-- }
#else
#define IN_USE running
inline take_up() { skip }
inline give_back() { skip }
#endif

active [3] proctype Claimer() {
    byte seen, limit, take, plain_before;
end: do
    :: is_limited && waiting > 0 && IN_USE < max_running ->
#ifdef COUNT_IN_THE_LOCKING_STATEMENT
        seen = IN_USE;
#endif
#ifdef LIMIT_READ_BEFORE_THE_LOCK
        limit = max_running;
#endif
#ifndef COUNT_WITHOUT_LOCK
        if
        :: atomic { queue_lock == 0 -> queue_lock = _pid + 1 }      /* SELECT … FROM queues FOR NO KEY UPDATE */
        :: atomic { queue_lock != 0 -> seen = 0; limit = 0; goto left_out }
        fi;
#endif
#ifdef LOCK_IN_A_TRANSACTION_OF_ITS_OWN
        queue_lock = 0;
#endif
        atomic {
#ifndef COUNT_IN_THE_LOCKING_STATEMENT
            seen = IN_USE;                                          /* a statement of its own, with a fresh snapshot */
#endif
#ifndef LIMIT_READ_BEFORE_THE_LOCK
            limit = max_running;
#endif
            plain_before = plain_count
        };
#ifdef CLAIM_AFTER_THE_COMMIT
        if :: queue_lock == _pid + 1 -> queue_lock = 0 :: else fi;
#endif
        if
        :: atomic {                                                 /* waiting -> running (claim), and COMMIT */
#ifdef CLAIM_OF_ONE_MORE
                take = (seen <= limit -> limit - seen + 1 : 0);
#else
                take = (seen < limit -> limit - seen : 0);
#endif
                take = LEAST(take, LEAST(BATCH, waiting));
                if :: take > 0 && skips > 0 -> skips--; take-- :: skip fi;  /* one is locked */
                waiting = waiting - take; running = running + take; take_up();
                PROMISE(over_limit, take == 0 || running <= max_running || plain_count != plain_before);
                seen = 0; limit = 0; take = 0; plain_before = 0;
                if :: queue_lock == _pid + 1 -> queue_lock = 0 :: else fi
            }
        :: atomic { rollbacks > 0 -> rollbacks--; seen = 0; limit = 0; plain_before = 0;
                if :: queue_lock == _pid + 1 -> queue_lock = 0 :: else fi }
        fi;
left_out:
        skip
    od
}

#if defined(UNLIMITED_AT_FIRST) || defined(PLAIN_CLAIM_OF_A_LIMITED_QUEUE)
/* run/claim: one statement, which sees the queue as it is when it begins. */
active [2] proctype PlainClaimer() {
    byte take;
end: do
#ifdef PLAIN_CLAIM_OF_A_LIMITED_QUEUE
    :: waiting > 0 ->
#else
    :: !is_limited && waiting > 0 ->
#endif
        atomic {                                                    /* waiting -> running (claim), and COMMIT */
            take = LEAST(BATCH, waiting);
            waiting = waiting - take; running = running + take;
#ifndef PLAIN_CLAIM_OF_A_LIMITED_QUEUE
            if :: is_limited -> plain_count++ :: else fi;
#endif
            PROMISE(over_limit, take == 0 || !is_limited || running <= max_running || plain_count > 0);
            take = 0
        }
    od
}
#endif

#ifdef UNLIMITED_AT_FIRST
/* PUT of the queue with its first limit. */
active proctype FirstLimit() {
    atomic { queue_lock == 0 -> is_limited = true }
}
#endif

/* What happens to a run that somebody executes; none of it takes the queue's lock. */
active proctype Ends() {
end: do
    :: atomic { running > 0 ->                                      /* running -> succeeded (finish) */
            running--; ended++;
#ifdef SLOTS_COUNTED_IN_A_ROW
        };
        if
        :: atomic { kills > 0 -> kills-- }                          /* before the second transaction */
        :: atomic { give_back() }
        fi
#else
        }
#endif
    :: atomic { running > 0 && retries > 0 ->                       /* running -> waiting (retry) */
            retries--; running--; waiting++; give_back() }
    :: atomic { running > 0 && kills > 0 ->                         /* running -> waiting (lost) */
            kills--; running--; waiting++; give_back() }
    od
}

#ifdef LOWERED
/* PATCH of the queue: its UPDATE waits for the claims that hold the row. */
active proctype Operator() {
    atomic { queue_lock == 0 -> max_running = 1 }
}
#endif

#ifdef LTL_drains
ltl drains { <> (ended == RUNS) }
#endif
