/* A queue's max_running: claims that lock the queue's row, count in a second statement, and claim what is left.
 *
 * Promises, by the flag that is set where one is broken:
 *   over_limit      after a claim that took runs, no more run than max_running says
 *   ltl drains      every run ends: no crash takes a slot away
 *
 * check: holds
 * check: holds with LIMIT=1, BATCH=1
 * check: holds with LOWERED
 * check: holds ltl drains
 * check: holds ltl drains with LOWERED
 * check: COUNT_IN_THE_LOCKING_STATEMENT breaks over_limit
 * check: COUNT_WITHOUT_LOCK breaks over_limit
 * check: LOCK_IN_A_TRANSACTION_OF_ITS_OWN breaks over_limit
 * check: LIMIT_READ_BEFORE_THE_LOCK breaks over_limit with LOWERED
 * check: CLAIM_OF_ONE_MORE breaks over_limit
 * check: SLOTS_COUNTED_IN_A_ROW breaks ltl drains with LIMIT=1
 *
 * Abstractions: runs are all alike, so each is a number in `waiting`, `running` or `ended`. What a transaction has
 * written is seen by others when it commits; a statement sees what was committed when it began, which for one that
 * waits for a lock is before the wait. Counting in the statement that locks (or in one transaction that keeps its
 * snapshot) is therefore a mutant: measured on PostgreSQL, a limit of 10 became 20.
 */

#ifndef LIMIT
#define LIMIT 2
#endif
#ifndef BATCH
#define BATCH 2
#endif
#define RUNS 4

byte max_running = LIMIT;   /* the row of `queues` */
byte queue_lock = 0;        /* the transaction that holds it */
byte waiting = RUNS, running = 0, ended = 0;
byte slots = 0;             /* of the mutant that keeps a counter */

byte kills = 1, retries = 1, rollbacks = 1;

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
    byte seen, limit, take;
end: do
    :: waiting > 0 && IN_USE < max_running ->
#ifdef COUNT_IN_THE_LOCKING_STATEMENT
        seen = IN_USE;
#endif
#ifdef LIMIT_READ_BEFORE_THE_LOCK
        limit = max_running;
#endif
#ifndef COUNT_WITHOUT_LOCK
        atomic { queue_lock == 0 -> queue_lock = _pid + 1 };        /* SELECT … FROM queues FOR UPDATE */
#endif
#ifdef LOCK_IN_A_TRANSACTION_OF_ITS_OWN
        queue_lock = 0;
#endif
        atomic {
#ifndef COUNT_IN_THE_LOCKING_STATEMENT
            seen = IN_USE;                                          /* a statement of its own, with a fresh snapshot */
#endif
#ifndef LIMIT_READ_BEFORE_THE_LOCK
            limit = max_running
#endif
        };
        if
        :: atomic {                                                 /* waiting -> running (claim), and COMMIT */
#ifdef CLAIM_OF_ONE_MORE
                take = (seen <= limit -> limit - seen + 1 : 0);
#else
                take = (seen < limit -> limit - seen : 0);
#endif
                take = LEAST(take, LEAST(BATCH, waiting));
                waiting = waiting - take; running = running + take; take_up();
                PROMISE(over_limit, take == 0 || running <= max_running);
                seen = 0; limit = 0; take = 0;
                if :: queue_lock == _pid + 1 -> queue_lock = 0 :: else fi
            }
        :: atomic { rollbacks > 0 -> rollbacks--; seen = 0; limit = 0; if :: queue_lock == _pid + 1 -> queue_lock = 0 :: else fi }
        fi
    od
}

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
