/* Pausing a queue while workers claim from it, and resuming it.
 *
 * Stands for sql/queries/run/claim.sql, sql/functions/claim_limited.sql, sql/functions/pause.sql, sql/functions/pause_queue.sql
 * and sql/functions/resume.sql.
 *
 * Promises, by the flag that is set where one is broken:
 *   started_after_pause    a claim that begins after the pause was answered takes no run
 *   more_than_a_batch      each worker starts at most the batch of the one claim that was under way
 *   attempt_spent          runs that are handed back since their queue is paused have all their attempts
 *   ltl drains             after a resume every run is claimed and ends
 *
 * check: holds
 * check: holds ltl drains
 * check: PAUSE_READ_FROM_A_CACHE breaks started_after_pause
 * check: CLAIM_IN_MANY_STATEMENTS breaks more_than_a_batch
 * check: HAND_BACK_SPENDS breaks attempt_spent
 * check: RESUME_NOT_TOLD_AND_NO_POLL breaks ltl drains
 *
 * Abstractions: runs are alike, and numbers. A claim is one statement: it sees the queue's row as it was committed when
 * it began, and takes runs later; nothing makes a pause wait for it, or a claim for a pause, for that would put a lock
 * into the way of every claim.
 */

#define RUNS 4
#define BATCH 2

bool paused = false;        /* the row of `queues`, as committed */
bool pause_answered = false;
byte waiting = RUNS, running = 0, ended = 0;
byte attempts = 0;          /* of all runs together */
byte begun = 0;             /* attempts that really began */
byte pauses = 1, hand_backs = 1;

bool started_after_pause, more_than_a_batch, attempt_spent;
#define PROMISE(flag, condition) if :: !(condition) -> flag = true; assert(!flag) :: else fi
#define LEAST(a, b) ((a) < (b) -> (a) : (b))

active [2] proctype Worker() {
    bool seen_paused, began_after, sleeps;
    byte take, since_pause;
#ifdef PAUSE_READ_FROM_A_CACHE
    bool cached;
#endif
end: do
#ifdef PAUSE_READ_FROM_A_CACHE
    :: cached = paused
#endif
    :: atomic { waiting > 0 && !sleeps ->                           /* the statement begins */
            began_after = pause_answered;
#ifdef PAUSE_READ_FROM_A_CACHE
            seen_paused = cached
#else
            seen_paused = paused
#endif
        };
more:
        atomic {                                                    /* waiting -> running (claim) */
            take = (seen_paused -> 0 : LEAST(BATCH, waiting));
            waiting = waiting - take; running = running + take; attempts = attempts + take; begun = begun + take;
            PROMISE(started_after_pause, !(began_after && take > 0));
            if
            :: pause_answered && paused -> since_pause = since_pause + take; PROMISE(more_than_a_batch, since_pause <= BATCH)
            :: else
            fi;
            sleeps = (take == 0);
            take = 0
        };
#ifdef CLAIM_IN_MANY_STATEMENTS
        if
        :: atomic { !seen_paused && waiting > 0 -> goto more }
        :: skip
        fi;
#endif
        atomic { seen_paused = false; began_after = false }
#ifdef RESUME_NOT_TOLD_AND_NO_POLL
    :: atomic { sleeps && paused -> false }
#else
    :: atomic { sleeps && !paused -> sleeps = false; since_pause = 0 }                  /* a wake-up, or the next poll */
#endif
    od
}

active proctype Ends() {
end: do
    :: atomic { running > 0 -> running--; ended++ }                 /* running -> succeeded (finish) */
    :: atomic { running > 0 && hand_backs > 0 && paused ->          /* running -> waiting (release) */
            hand_backs--; running--; waiting++; begun--;
#ifndef HAND_BACK_SPENDS
            attempts--;
#endif
            PROMISE(attempt_spent, attempts == begun)
        }
    od
}

/* howdah.pause and howdah.resume. */
active proctype Operator() {
    if
    :: atomic { pauses > 0 -> pauses--; paused = true };
        pause_answered = true;
        atomic { paused = false; pause_answered = false }
    :: skip
    fi
}

#ifdef LTL_drains
ltl drains { <> (ended == RUNS) }
#endif
