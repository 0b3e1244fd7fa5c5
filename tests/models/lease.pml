/* One task from its first claim to its end: claim, heartbeat, finish, hand back, rescue, cancel, park, replay.
 *
 * Stands for sql/queries/run/claim.sql, sql/queries/run/find_claimed.sql, sql/queries/run/heartbeat.sql,
 * sql/queries/run/complete.sql, sql/queries/run/fail.sql, sql/queries/run/release.sql,
 * sql/queries/run/find_recorded.sql, sql/queries/run/lock_expired.sql, sql/queries/run/park.sql,
 * sql/queries/run/unpark.sql, sql/functions/cancel.sql, sql/functions/replay.sql, app/howdah/core/store/reports.py and
 * worker/howdah_worker/transaction.py.
 *
 * Promises, by the flag that is set where one is broken:
 *   overwritten           a report, renewal or hand-back changes the run only while its own claim is the current one
 *   second_outcome        one lease has at most one row of history
 *   wrongly_refused       who is answered lease_lost has not recorded its outcome
 *   held_called_lost      a heartbeat calls no lease lost that is held
 *   renewed_was_taken     rescue takes no lease that has been renewed
 *   task_lost             the task is always a run, a dead letter or ended
 *   reopened              what succeeded or was cancelled never comes back
 *   started_after_cancel  no attempt begins once a cancel was answered `cancelled`, or was noted on the run
 *   parked_with_lease     a run that somebody executes is not parked
 *   too_many_attempts     claims that were spent never exceed max_attempts
 *   second_effect         what a handler does in ctx.transaction() takes effect once
 *   handlers_overlap      (not promised) two handlers of one task never work at the same time
 *   ltl ends              the task ends, whatever crashes and whichever answers are lost
 *
 * check: holds with HAND_BACKS=1, CANCELS=1
 * check: holds with CANCELS=1, PARKS=1
 * check: holds with REPLAYS=1, KILLS=0
 * check: holds with REPLAYS=1, CANCELS=1, BROKEN=0
 * check: holds with ATTEMPTS=4, CRASH_LIMIT=2, KILLS=2
 * check: holds with FAILOVER, BROKEN=0
 * check: holds with FAILOVER, KILLS=0, ATTEMPTS=1
 * check: holds with FINISH_BY_CLAIM_NO, HAND_BACKS=1
 * check: holds ltl ends with HAND_BACKS=1, BROKEN=0
 * check: holds ltl ends with CANCELS=1
 * check: holds ltl ends with PARKS=1, KILLS=0
 * check: FINISH_BY_TASK breaks overwritten
 * check: FINISH_BY_STATE breaks overwritten
 * check: FINISH_BY_WORKER breaks overwritten
 * check: FINISH_BY_ATTEMPT breaks overwritten with HAND_BACKS=1
 * check: FINISH_BY_CLAIM_NO breaks overwritten with FAILOVER
 * check: RESCUE_KEEPS_TOKEN breaks second_outcome
 * check: LOOKUP_IN_THE_SAME_STATEMENT breaks wrongly_refused
 * check: HEARTBEAT_CALLS_LOCKED_LOST breaks held_called_lost
 * check: RESCUE_WITHOUT_LOCK breaks renewed_was_taken
 * check: REPLAY_IN_TWO_TRANSACTIONS breaks task_lost with REPLAYS=1
 * check: REPLAY_OF_ANYTHING breaks reopened with REPLAYS=1
 * check: CANCEL_WITHOUT_LOCK breaks started_after_cancel with CANCELS=1
 * check: RETRY_FORGETS_CANCEL breaks started_after_cancel with CANCELS=1
 * check: PARK_WITHOUT_RECHECK breaks parked_with_lease with PARKS=1
 * check: LOSS_IS_FREE breaks too_many_attempts
 * check: EFFECT_APART breaks second_effect
 * check: HANDLERS_APART breaks handlers_overlap
 * check: NO_RESCUE breaks ltl ends
 *
 * Abstractions: a lease may end at any moment (so no clock, however wrong, has another execution in store), a retry
 * delay is over at once, run_now and the other changes of a waiting task are left out since they move no lease.
 * A statement that locks one row and changes it is one step; a transaction of several is one step each, with the lock
 * held between them. A worker that stops for ever, or goes on much later, is one whose next step is not scheduled.
 * A receiver of a callback that answered 202 is the holder of the lease, as the worker was that handed it on.
 * HANDLERS_APART is no mutant: it shows that handlers can overlap, which is why guarantees.md does not promise it.
 */

#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#ifndef CRASH_LIMIT
#define CRASH_LIMIT 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef BROKEN
#define BROKEN 1
#endif
#ifndef HAND_BACKS
#define HAND_BACKS 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef PARKS
#define PARKS 0
#endif
#ifndef REPLAYS
#define REPLAYS 0
#endif
#define TOKENS 7

mtype = { none, succeeded, failed, cancelled };
mtype = { ok, error, stopped, handed_back };

/* The row of `runs`. */
bool live = true;
byte token = 0;             /* lease_token: a random UUID, here a number that is drawn once; 0 is NULL */
byte claim_no = 0;
byte attempt = 0;
byte crashes = 0;
byte worker_id = 0;
bool expired = false;       /* lease_expires_at < howdah.now() */
bool asked_to_stop = false; /* cancel_mode */
bool parked = false;        /* blocked_by & 8 */
byte row_lock = 0;          /* the transaction that holds it */
/* The row of `dead_letters`, and those of `finished_runs`: one bit for each token that has one. */
bool dead = false;
mtype final = none;
byte recorded = 0;
byte reported = 0;          /* those that came from the worker */
byte effects = 0;

/* What faults and clients may still do. */
byte kills = KILLS, broken = BROKEN, hand_backs = HAND_BACKS, cancels = CANCELS, parks = PARKS, replays = REPLAYS;

/* Known to nobody in the system. */
byte drawn = 0;
byte spent = 0;
byte handlers = 0;
bool cancel_answered = false;
byte timeline = 0;

bool overwritten, second_outcome, wrongly_refused, held_called_lost, renewed_was_taken, task_lost, reopened,
    started_after_cancel, parked_with_lease, too_many_attempts, second_effect, handlers_overlap;
#define PROMISE(flag, condition) if :: !(condition) -> flag = true; assert(!flag) :: else fi

#define LEASED (live && token != 0)
#define WAITS (live && token == 0 && !parked)
#define OVER (!live && (dead || final != none))

/* Which run a worker's statement changes. */
#if defined(FINISH_BY_TASK)
#define HELD (live)
#elif defined(FINISH_BY_STATE)
#define HELD (LEASED)
#elif defined(FINISH_BY_WORKER)
#define HELD (LEASED && worker_id == me)
#elif defined(FINISH_BY_ATTEMPT)
#define HELD (LEASED && attempt == my_attempt)
#elif defined(FINISH_BY_CLAIM_NO)
#define HELD (LEASED && claim_no == my_claim_no)
#else
#define HELD (LEASED && token == mine)
#endif

inline record() {
    PROMISE(second_outcome, !(recorded & (1 << token)));
    recorded = recorded | (1 << token)
}

inline leave(how) { live = false; token = 0; expired = false; asked_to_stop = false; crashes = 0; final = how }

/* The token goes, so that no report of the old claim can match. */
inline rearm() { token = 0; expired = false; worker_id = 0 }

#ifdef RETRY_FORGETS_CANCEL
#define ENDS_AS_CANCELLED false
#else
#define ENDS_AS_CANCELLED asked_to_stop
#endif

/* run/complete, run/fail and run/release: one statement that waits for the row's lock. */
inline finish() {
    if
    :: HELD ->
        PROMISE(overwritten, token == mine);
        record();
        reported = reported | (1 << token);
        if
        :: outcome == ok ->                                         /* running -> succeeded (finish) */
#ifndef EFFECT_APART
            effects++; PROMISE(second_effect, effects <= 1);
#endif
            leave(succeeded)
        :: outcome == stopped -> leave(cancelled)                   /* running -> cancelled (cancel) */
        :: outcome == handed_back && ENDS_AS_CANCELLED -> leave(cancelled)
        :: outcome == handed_back && !ENDS_AS_CANCELLED ->          /* running -> waiting (release), (snooze) */
            attempt--; spent--; rearm()
        :: outcome == error && ENDS_AS_CANCELLED -> leave(cancelled)
        :: outcome == error && !ENDS_AS_CANCELLED && attempt < ATTEMPTS -> rearm()  /* running -> waiting (retry) */
        :: outcome == error && !ENDS_AS_CANCELLED && attempt >= ATTEMPTS ->         /* running -> failed (dead_letter) */
            dead = true; leave(failed)
        fi
    :: else -> is_refused = true
    fi
}

proctype Worker(byte me) {
    byte mine, my_claim_no, my_attempt, beats;
    byte outcome = none;
    bool is_refused, was_recorded;
    byte asked_on;

idle:
    atomic { mine = 0; my_claim_no = 0; my_attempt = 0; beats = 0; outcome = none; is_refused = false; was_recorded = false };
end_idle:
    atomic {                                                        /* waiting -> running (claim) */
        WAITS && row_lock == 0 && drawn < TOKENS ->
        PROMISE(started_after_cancel, !cancel_answered && !asked_to_stop);
        drawn++; claim_no++; attempt++; spent++;
        PROMISE(too_many_attempts, spent <= ATTEMPTS);
        token = drawn; worker_id = me; expired = false;
        mine = drawn; my_claim_no = claim_no; my_attempt = attempt
    };
    if
    :: skip                                                         /* the answer arrives */
    :: atomic { broken > 0 -> broken-- };                           /* it does not: run/find_claimed asks for the token */
        if
        :: atomic { LEASED && token == mine }
        :: atomic { !(LEASED && token == mine) -> goto idle }
        fi
    :: atomic { kills > 0 -> kills--; goto idle }
    fi;
    atomic { handlers++;
#ifdef HANDLERS_APART
        PROMISE(handlers_overlap, handlers <= 1)
#endif
    };
works:
    if
    :: atomic { beats < 1 ->                                        /* running -> running (heartbeat) */
            beats++;
            if
            :: row_lock == 0 && HELD -> PROMISE(overwritten, token == mine); expired = false
            :: row_lock == 0 && !HELD -> handlers--; goto idle  /* lost */
            :: row_lock != 0 ->
#ifdef HEARTBEAT_CALLS_LOCKED_LOST
                PROMISE(held_called_lost, !HELD); handlers--; goto idle
#else
                skip                                                /* busy: asks again */
#endif
            fi };
        goto works
    :: atomic { outcome = ok; handlers--;
#ifdef EFFECT_APART
            effects++; PROMISE(second_effect, effects <= 1)
#endif
        }
    :: atomic { outcome = error; handlers-- }
    :: atomic { asked_to_stop && HELD -> outcome = stopped; handlers-- }
    :: atomic { hand_backs > 0 -> hand_backs--; outcome = handed_back; handlers-- }
    :: atomic { kills > 0 -> kills--; handlers--; goto idle }
    fi;
reports:
    if
    :: skip
    :: atomic { broken > 0 -> broken--; run Session(me, mine, my_claim_no, my_attempt, outcome) }
    :: atomic { kills > 0 && broken > 0 -> kills--; broken--; run Session(me, mine, my_claim_no, my_attempt, outcome); goto idle }
    fi;
#ifdef LOOKUP_IN_THE_SAME_STATEMENT
    was_recorded = (reported & (1 << mine)) != 0;                   /* its snapshot, from before the wait for the lock */
#endif
#ifdef FAILOVER
    atomic { row_lock == 0 -> asked_on = timeline; finish() };
    if
    :: atomic { timeline == asked_on -> asked_on = 0 }
    :: atomic { timeline != asked_on -> asked_on = 0; is_refused = false; goto reports }  /* another server: asks anew */
    fi;
#else
    atomic { row_lock == 0 -> finish() };
#endif
#ifndef LOOKUP_IN_THE_SAME_STATEMENT
    was_recorded = (reported & (1 << mine)) != 0;                   /* run/find_recorded: a second statement */
#endif
    atomic {
        PROMISE(wrongly_refused, !is_refused || was_recorded || !(reported & (1 << mine)));
        goto idle
    }
}

/* A statement whose client has gone: the server executes it at any time, or never. */
proctype Session(byte me, mine, my_claim_no, my_attempt, outcome) {
    bool is_refused;
    byte asked_on = timeline;
    if
    :: atomic { row_lock == 0 && timeline == asked_on -> finish() }
    :: skip
    fi
}

/* A lease may run out at any moment: workers are stopped, clocks jump, networks break. */
active proctype Clock() {
end: do
    :: atomic { LEASED && !expired -> expired = true }
    od
}

#ifndef NO_RESCUE
/* run/lock_expired and run/fail in one transaction. */
active proctype Rescue() {
    byte seen;
    byte deaths = 1;
end: do
    :: atomic { LEASED && expired && row_lock == 0 ->
            seen = token;
#ifndef RESCUE_WITHOUT_LOCK
            row_lock = 1
#endif
        };
        if
        :: atomic {
                if
                :: LEASED && token == seen ->
                    PROMISE(renewed_was_taken, expired);
                    record();
                    crashes++;
#ifdef LOSS_IS_FREE
                    attempt--; crashes = 0;
#endif
                    if
                    :: ENDS_AS_CANCELLED -> leave(cancelled)
                    :: !ENDS_AS_CANCELLED && crashes < CRASH_LIMIT && attempt < ATTEMPTS ->  /* running -> waiting (lost) */
#ifdef RESCUE_KEEPS_TOKEN
                        expired = true      /* recorded, and still there for its worker to report */
#else
                        rearm()
#endif
                    :: !ENDS_AS_CANCELLED && (crashes >= CRASH_LIMIT || attempt >= ATTEMPTS) ->
                        dead = true; leave(failed)
                    fi
                :: else
                fi;
                seen = 0;
                if :: row_lock == 1 -> row_lock = 0 :: else fi
            }
        :: atomic { deaths > 0 -> deaths--; seen = 0; if :: row_lock == 1 -> row_lock = 0 :: else fi }  /* rolled back */
        fi
    od
}
#endif

/* howdah.cancel: locks the row, then looks at it. */
active proctype Canceller() {
    bool was_leased;
end: do
    :: atomic { cancels > 0 && live && row_lock == 0 ->
            cancels--; was_leased = LEASED;
#ifndef CANCEL_WITHOUT_LOCK
            row_lock = 2
#endif
        };
        atomic {
            if
            :: live && was_leased -> asked_to_stop = true           /* running -> running (cancel_request) */
            :: live && !was_leased ->                               /* waiting -> cancelled (cancel), blocked -> cancelled (cancel) */
                parked = false; leave(cancelled); cancel_answered = true
            :: else
            fi;
            if :: row_lock == 2 -> row_lock = 0 :: else fi
        }
    od
}

/* run/park looks for due runs, then locks and updates what is still one; run/unpark, and a change of lane, release it. */
active proctype Park() {
end: do
    :: atomic { parks > 0 && WAITS -> parks-- };
        atomic {
            if
#ifdef PARK_WITHOUT_RECHECK
            :: live && row_lock == 0 ->
#else
            :: WAITS && row_lock == 0 ->                            /* waiting -> blocked (park) */
#endif
                PROMISE(parked_with_lease, !LEASED);
                parked = true
            :: else
            fi
        }
    :: atomic { live && parked && row_lock == 0 -> parked = false } /* blocked -> waiting (unpark), (change) */
    od
}

/* howdah.replay. */
active proctype Operator() {
end: do
#ifdef REPLAY_OF_ANYTHING
    :: atomic { replays > 0 && OVER ->
#else
    :: atomic { replays > 0 && dead ->                         /* failed -> waiting (replay) */
#endif
            replays--; dead = false;
#ifdef REPLAY_IN_TWO_TRANSACTIONS
        };
        atomic {
#endif
            PROMISE(reopened, final != succeeded && final != cancelled);
            live = true; attempt = 0; crashes = 0; spent = 0
        }
    od
}

active proctype Watch() {
end: do
    :: atomic { !live && !dead && final == none || (final == failed && !live && !dead) -> task_lost = true; assert(!task_lost) }
    :: atomic { (live || dead) && (final == succeeded || final == cancelled) -> reopened = true; assert(!reopened) }
    od
}

#ifdef FAILOVER
/* An asynchronous standby: what it had replicated at some moment becomes the truth at another. */
active proctype Standby() {
    bool s_live, s_expired, s_asked, s_parked, s_dead, s_cancel_answered;
    byte s_token, s_claim_no, s_attempt, s_crashes, s_worker, s_recorded, s_reported, s_effects, s_spent;
    mtype s_final;
    if
    :: d_step { s_live = live; s_token = token; s_claim_no = claim_no; s_attempt = attempt; s_crashes = crashes;
            s_worker = worker_id; s_expired = expired; s_asked = asked_to_stop; s_parked = parked; s_dead = dead;
            s_final = final; s_recorded = recorded; s_reported = reported; s_effects = effects; s_spent = spent;
            s_cancel_answered = cancel_answered };
        d_step { row_lock == 0 ->
            live = s_live; token = s_token; claim_no = s_claim_no; attempt = s_attempt; crashes = s_crashes;
            worker_id = s_worker; expired = s_expired; asked_to_stop = s_asked; parked = s_parked; dead = s_dead;
            final = s_final; recorded = s_recorded; reported = s_reported; effects = s_effects; spent = s_spent;
            cancel_answered = s_cancel_answered; timeline++ }
    :: skip
    fi
}
#endif

init { atomic { run Worker(1); run Worker(2) } }

#ifdef LTL_ends
ltl ends { []<> OVER }
#endif
