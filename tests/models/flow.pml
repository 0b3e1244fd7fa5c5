/* Flow keys: a claim parks what has no room, whoever ends a run gives its place on, a chore comes by.
 *
 * Stands for sql/functions/claim_limited.sql (CLAIM below), sql/functions/settle.sql (SETTLE) with
 * sql/functions/lock_flow_keys.sql, sql/functions/cancel_runs.sql, sql/functions/make_flow_keys.sql,
 * sql/queries/flow_key/walk.sql, sql/queries/flow_key/lock_idle.sql, sql/queries/flow_key/delete_idle.sql,
 * worker/howdah_worker/vacancies.py and scheduler/howdah_scheduler/settle.py.
 *
 * Promises, by the flag that is set where one is broken:
 *   over_limit      the key never has more runs with a place than its concurrency allows
 *   idle_room       whenever no transaction is open, and nobody was killed or has left out what was locked, a run is
 *                   parked only if there is no room
 *   key_gone        a run that waits or runs has its row of `flow_keys`
 *   ltl drains      every run ends: none stays parked for ever, whatever crashes and is left out
 *
 * check: holds
 * check: holds with LIMIT=2
 * check: holds with CANCELS=1, RUNS=3
 * check: holds with CHORE, CANCELS=1, RUNS=3
 * check: holds with CLEANS, RUNS=2
 * check: holds ltl drains with CHORE, RUNS=3
 * check: holds ltl drains with CHORE, CANCELS=1, KILLS=0, RUNS=3
 * check: CLAIM_WITHOUT_LOCK breaks over_limit with UNWATCHED
 * check: CLAIM_COUNTS_IN_THE_LOCKING_STATEMENT breaks over_limit with UNWATCHED
 * check: CLAIM_COUNTS_IN_THE_LOCKING_STATEMENT breaks idle_room with KILLS=0, SKIPS=0
 * check: CLAIM_OF_A_KEY_LEFT_OUT breaks over_limit
 * check: SETTLE_WITHOUT_LOCK breaks over_limit with UNWATCHED
 * check: SETTLE_COUNTS_IN_THE_LOCKING_STATEMENT breaks over_limit with UNWATCHED
 * check: SETTLE_BEFORE_THE_END breaks idle_room
 * check: END_WITHOUT_SETTLING breaks idle_room
 * check: CANCEL_WITHOUT_SETTLING breaks idle_room with CANCELS=1
 * check: CANCEL_JUDGES_BEFORE_THE_LOCK breaks idle_room with CANCELS=1
 * check: LOSS_GIVES_THE_PLACE_UP breaks idle_room
 * check: ENQUEUE_WITHOUT_KEY_SHARE breaks key_gone with CLEANS, RUNS=2
 * check: DELETE_WITHOUT_A_SECOND_LOOK breaks key_gone with CLEANS, RUNS=2
 * check: NO_CHORE breaks ltl drains with RUNS=2
 *
 * Abstractions: all runs carry one key. A claim takes one run; of a key whose runs wait in two queues two claims go on
 * at once, so the lock of the queue's row, which comes first, is left out (limit.pml has it). A run keeps its place
 * from its first claim to its end, so retries are like lost leases here, and leave it `granted`. Rates are left out:
 * they move a run in time, not to another state. What a transaction has written is seen by others when it commits, a
 * statement sees what was committed when it began.
 * A lock that is not had within 50 ms (`lock_timeout`) is left out, and so is a parked run that is locked (SKIP LOCKED):
 * both happen at most SKIPS times, whenever somebody holds it. The first costs a claim its run's place in time, for the
 * run is parked; both leave room idle until the chore comes, as does a death between an outcome and its settling.
 * UNWATCHED leaves idle_room out, so that a search goes on to the other promise.
 * CLEANS adds the life of the row of `flow_keys` itself: made by the first task, deleted when it is idle.
 */

#ifndef LIMIT
#define LIMIT 1
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef SKIPS
#define SKIPS 1
#endif
#ifndef RUNS
#define RUNS 4
#endif
#define NOBODY RUNS

mtype = { unknown, ready, parked, granted, running, gone };

/* Rows of `runs`, as committed: flow_state is 0 in ready, 1 in parked, 2 in granted and running. */
mtype at[RUNS] = unknown;
byte run_lock[RUNS] = 0;    /* the transactions that hold their locks */
byte key_lock = 0;          /* the transaction that holds the row of `flow_keys`, FOR (NO KEY) UPDATE */
byte under_way = 0;         /* transactions that have locked something, and settlings that are owed */
byte places = 0;            /* how many are granted or running, as committed */
byte kills = KILLS, cancels = CANCELS, skips = SKIPS;
bool is_excused = false;    /* somebody was killed, or left out what was locked: the chore's business */

bool over_limit, idle_room, key_gone;
#define PROMISE(flag, condition) if :: !(condition) -> flag = true; assert(!flag) :: else fi

#define ME (_pid + 1)
#define HAS_PLACE(i) (i < RUNS && (at[i] == granted || at[i] == running) -> 1 : 0)
#if RUNS == 2
#define SOME_PARKED (at[0] == parked || at[1] == parked)
#define ALL_GONE (at[0] == gone && at[1] == gone)
#elif RUNS == 3
#define SOME_PARKED (at[0] == parked || at[1] == parked || at[2] == parked)
#define ALL_GONE (at[0] == gone && at[1] == gone && at[2] == gone)
#else
#define SOME_PARKED (at[0] == parked || at[1] == parked || at[2] == parked || at[3] == parked)
#define ALL_GONE (at[0] == gone && at[1] == gone && at[2] == gone && at[3] == gone)
#endif

#ifdef CLEANS
bool is_key = false;        /* the row of `flow_keys` */
byte shares = 0;            /* transactions that hold it FOR KEY SHARE, which keeps nobody but the cleaner from it */
#endif

/* howdah.lock_flow_keys: what is not had in 50 ms is left out. */
inline lock_key() {
    if
    :: atomic { key_lock == 0 -> key_lock = ME }
    :: atomic { key_lock != 0 && skips > 0 -> skips--; is_excused = true; is_left_out = true }
    fi
}

inline unlock_key() { if :: key_lock == ME -> key_lock = 0 :: else fi; is_left_out = false }

inline count_room(own) { room = LIMIT - places + HAS_PLACE(own) }

/* The runs that are to be granted, the oldest first; one that is locked is passed by. */
inline choose(own) {
    i = 0;
    do
    :: i < RUNS ->
        if
        :: room > 0 && at[i] == parked && i != own && run_lock[i] == 0 -> run_lock[i] = ME; room--
        :: room > 0 && at[i] == parked && i != own && run_lock[i] != 0 -> is_excused = true
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0; room = 0
}

/* SETTLE: lock the key; then, in a statement with a fresh snapshot, count the places, and lock whom they go to. */
inline settle(own) {
#ifdef SETTLE_COUNTS_IN_THE_LOCKING_STATEMENT
    atomic { count_room(own) };
#endif
#ifndef SETTLE_WITHOUT_LOCK
    lock_key();
#endif
#ifdef SETTLE_WITHOUT_LOCK
    atomic { count_room(own) };
#endif
    atomic {
        if
        :: is_left_out -> room = 0
        :: else ->
#if !defined(SETTLE_COUNTS_IN_THE_LOCKING_STATEMENT) && !defined(SETTLE_WITHOUT_LOCK)
            count_room(own);
#endif
            choose(own)
        fi
    }
}

/* What settling has chosen, as its transaction commits or is rolled back. */
inline grant(own) {
    i = 0;
    do
    :: i < RUNS ->
        if
        :: run_lock[i] == ME && i != own -> run_lock[i] = 0; at[i] = granted; places++
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0;
    PROMISE(over_limit, places <= LIMIT);
    unlock_key(); under_way--
}

inline roll_back() {
    i = 0;
    do
    :: i < RUNS -> if :: run_lock[i] == ME -> run_lock[i] = 0 :: else fi; i++
    :: else -> break
    od;
    i = 0;
    unlock_key(); under_way--
}

/* howdah.enqueue_many: it waits for no claim, and no claim for it. */
active proctype Client() {
    byte mine = 0;
end: do
    :: atomic { mine < RUNS ->                                      /* new -> waiting (enqueue) */
#ifdef CLEANS
#ifdef ENQUEUE_WITHOUT_KEY_SHARE
            is_key = true
        };
        atomic {
#else
            key_lock == 0 -> is_key = true; shares++                /* INSERT, or SELECT … FOR KEY SHARE */
        };
        atomic {
            shares--;
#endif
            PROMISE(key_gone, is_key);
#endif
            at[mine] = ready; mine++
        }
    od
}

#ifdef SETTLE_BEFORE_THE_END
inline end_late() { at[mine] = gone; places-- }
inline lose_unended() { at[mine] = granted }
#else
inline end_late() { skip }
inline lose_unended() { skip }
#endif

#define CLAIMABLE(i) ((at[i] == ready || at[i] == granted) && run_lock[i] == 0)

active [2] proctype Worker() {
    byte mine = 0, i = 0;
    short room = 0;
    bool had_place = false, is_left_out = false, is_held = false, owes = false;
end: do
    /* CLAIM: lock the run, if nobody has; lock its key; then count, in a statement with a fresh snapshot. */
    :: atomic {
            if
            :: CLAIMABLE(0) -> mine = 0
            :: CLAIMABLE(1) -> mine = 1
#if RUNS > 2
            :: CLAIMABLE(2) -> mine = 2
#endif
#if RUNS > 3
            :: CLAIMABLE(3) -> mine = 3
#endif
            fi;
            run_lock[mine] = ME; under_way++; had_place = (at[mine] == granted)
        };
#ifdef CLAIM_COUNTS_IN_THE_LOCKING_STATEMENT
        atomic { count_room(NOBODY); if :: SOME_PARKED -> room = 0 :: else fi };
#endif
#ifndef CLAIM_WITHOUT_LOCK
        lock_key();
#endif
        atomic {
#ifndef CLAIM_COUNTS_IN_THE_LOCKING_STATEMENT
            count_room(NOBODY);
            /* Others of the key wait already: they are first. */
            if :: SOME_PARKED -> room = 0 :: else fi;
#endif
#ifndef CLAIM_OF_A_KEY_LEFT_OUT
            if :: is_left_out -> room = 0 :: else fi
#endif
        };
        if
        :: atomic {                                                 /* COMMIT */
                if
                :: had_place -> at[mine] = running                  /* waiting -> running (claim) */
                :: !had_place && room > 0 -> at[mine] = running; places++
                :: else -> at[mine] = parked                        /* waiting -> blocked (hold) */
                fi;
                PROMISE(over_limit, places <= LIMIT);
                is_held = (at[mine] == running);
                run_lock[mine] = 0; room = 0; unlock_key(); under_way--
            }
        :: atomic { kills > 0 -> kills--; room = 0; roll_back() }
        fi;
        if
        :: atomic { is_held ->
                is_held = false;
                if
#ifdef LOSS_GIVES_THE_PLACE_UP
                :: kills > 0 -> kills--; at[mine] = ready; places--
#else
                :: kills > 0 -> kills--; at[mine] = granted         /* running -> waiting (lost) */
#endif
                :: owes = true; under_way++;
#ifndef SETTLE_BEFORE_THE_END
                    at[mine] = gone; places--                       /* running -> succeeded (finish), and COMMIT */
#endif
                fi
            }
        :: atomic { !is_held }
        fi;
        if
        :: atomic { owes -> owes = false };
#ifdef END_WITHOUT_SETTLING
            atomic { under_way-- }
#else
            if
            :: atomic { kills > 0 -> kills--; is_excused = true; under_way--; lose_unended() }
            :: settle(NOBODY);                                      /* a transaction of its own */
                if
                :: atomic { grant(NOBODY); end_late() }             /* blocked -> waiting (grant), and COMMIT */
                :: atomic { kills > 0 -> kills--; is_excused = true; roll_back(); lose_unended() }
                fi
            fi
#endif
        :: atomic { !owes }
        fi;
        atomic { mine = 0; had_place = false }
    od
}

#if CANCELS > 0
#define WAITS(i) (at[i] == ready || at[i] == parked || at[i] == granted)
#define CAN_CANCEL(i) (cancels > 0 && WAITS(i))

/* Whoever ends a run that waits: howdah.cancel, expire, replace. Unlike a worker it settles in the same transaction, in
 * a later statement; one that has no place has none to give on. */
active proctype Canceller() {
    byte mine = 0, i = 0;
    short room = 0;
    bool had_place = false, is_left_out = false;
end: do
    :: atomic {
            if
            :: CAN_CANCEL(0) -> mine = 0
            :: CAN_CANCEL(1) -> mine = 1
#if RUNS > 2
            :: CAN_CANCEL(2) -> mine = 2
#endif
#if RUNS > 3
            :: CAN_CANCEL(3) -> mine = 3
#endif
            fi;
            cancels--; had_place = (at[mine] == granted)
        };
        if
        :: atomic { run_lock[mine] == 0 && WAITS(mine) ->           /* which may be a wait for a claim or a grant */
                run_lock[mine] = ME; under_way++;
#ifndef CANCEL_JUDGES_BEFORE_THE_LOCK
                had_place = (at[mine] == granted)
#endif
            };
            if
#ifdef CANCEL_WITHOUT_SETTLING
            :: skip
#else
            :: had_place -> settle(mine)
            :: !had_place
#endif
            fi;
            if
            :: atomic {                                             /* waiting -> cancelled (cancel), and COMMIT */
                    places = places - HAS_PLACE(mine); at[mine] = gone; run_lock[mine] = 0; grant(mine)
                }
            :: atomic { kills > 0 -> kills--; roll_back() }
            fi
        :: atomic { run_lock[mine] == 0 && !WAITS(mine) }           /* it runs, or has ended, by now */
        fi;
        atomic { had_place = false; mine = 0 }
    od
}
#endif

#ifdef CHORE
/* It walks over the keys for which somebody waits, and settles them. */
active proctype Chore() {
    byte i = 0;
    short room = 0;
    bool is_left_out = false;
end: do
    :: atomic { SOME_PARKED && places < LIMIT -> under_way++ };
        settle(NOBODY);
        atomic { grant(NOBODY) }
    od
}
#endif

#ifdef CLEANS
#define IS_LIVE(i) (at[i] != unknown && at[i] != gone)
#define IS_IDLE (!IS_LIVE(0) && !IS_LIVE(1))

/* flow_key/lock_idle passes by what is locked; flow_key/delete_idle looks again, with a fresh snapshot. */
active proctype Cleaner() {
    bool was_idle = false;
end: do
    :: atomic { is_key && IS_IDLE -> was_idle = true };             /* what the first statement sees as it begins */
        if
        :: atomic { key_lock == 0 && shares == 0 && is_key -> key_lock = ME };
            atomic {
#ifdef DELETE_WITHOUT_A_SECOND_LOOK
                if :: was_idle -> is_key = false :: else fi;
#else
                if :: IS_IDLE -> is_key = false :: else fi;
#endif
                PROMISE(key_gone, is_key || IS_IDLE);
                key_lock = 0
            }
        :: atomic { key_lock != 0 || shares != 0 || !is_key }
        fi;
        atomic { was_idle = false }
    od
}
#endif

#if !defined(UNWATCHED) && !defined(LTL_drains)
active proctype Watch() {
end: do
    :: atomic { under_way == 0 && !is_excused && SOME_PARKED && places < LIMIT -> idle_room = true; assert(!idle_room) }
    od
}
#endif

#ifdef NO_CHORE
#undef CHORE
#endif

#ifdef LTL_drains
ltl drains { <> ALL_GONE }
#endif
