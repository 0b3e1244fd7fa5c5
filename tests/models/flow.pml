/* A flow key with a concurrency: enqueue parks what has no room, the end of a run releases the next one.
 *
 * Promises, by the flag that is set where one is broken:
 *   over_limit      the key never has more runs that are not parked than its concurrency allows
 *   idle_room       whenever no transaction is open, a run is parked only if there is no room
 *   ltl drains      every run ends: none stays parked for ever, whatever crashes
 *
 * check: holds
 * check: holds with LIMIT=2
 * check: holds with CANCELS=1
 * check: holds with SETTLE_APART, CHORE, UNWATCHED
 * check: holds ltl drains with CANCELS=1
 * check: holds ltl drains with SETTLE_APART, CHORE
 * check: ENQUEUE_WITHOUT_LOCK breaks over_limit with UNWATCHED
 * check: ENQUEUE_COUNTS_IN_THE_LOCKING_STATEMENT breaks over_limit with UNWATCHED
 * check: ENQUEUE_COUNTS_IN_THE_LOCKING_STATEMENT breaks idle_room
 * check: SETTLE_WITHOUT_LOCK breaks idle_room
 * check: SETTLE_IN_THE_SAME_STATEMENT breaks idle_room
 * check: CANCEL_WITHOUT_SETTLING breaks idle_room with CANCELS=1
 * check: GRANT_SKIPS_LOCKED breaks idle_room with CANCELS=1
 * check: GRANT_LOOKS_ONCE breaks idle_room with CANCELS=1
 * check: CHORE_WITHOUT_LOCK breaks over_limit with SETTLE_APART, CHORE, UNWATCHED
 * check: SETTLE_APART breaks idle_room
 * check: SETTLE_APART breaks ltl drains
 *
 * Abstractions: all runs carry one key. A run holds its place from the moment when it is not parked (any more) to its
 * end, so retries and lost leases keep it; they are left out, but for the death of a worker, which rolls its
 * transaction back and leaves the run to rescue. What a transaction has written is seen by others when it commits, a
 * statement sees what was committed when it began.
 * UNWATCHED leaves idle_room out, so that a search goes on to the other promise.
 * SETTLE_APART settles in a transaction of its own, after the outcome is committed: then a crash between the two
 * leaves room idle, and only the chore saves the parked run. Together with the chore it still drains.
 */

#ifndef LIMIT
#define LIMIT 1
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#define RUNS 4

mtype = { unknown, parked, granted, running, gone };

mtype at[RUNS] = unknown;   /* rows of `runs`, as committed; parked is blocked_by & 4 */
byte run_lock[RUNS] = 0;    /* the transactions that hold their locks */
byte key_lock = 0;          /* the transaction that holds the row of `flow_keys` */
byte under_way = 0;              /* transactions that have written, or are about to */
byte kills = 1, cancels = CANCELS;

bool over_limit, idle_room;
#define PROMISE(flag, condition) if :: !(condition) -> flag = true; assert(!flag) :: else fi

#define HAS_PLACE(i) (at[i] == granted || at[i] == running -> 1 : 0)
#define PLACES (HAS_PLACE(0) + HAS_PLACE(1) + HAS_PLACE(2) + HAS_PLACE(3))
#define IS_PARKED(i) (at[i] == parked)
#define SOME_PARKED (IS_PARKED(0) || IS_PARKED(1) || IS_PARKED(2) || IS_PARKED(3))
#define NOBODY RUNS

#ifdef GRANT_SKIPS_LOCKED
#define CAN_BE_NEXT(i) (IS_PARKED(i) && run_lock[i] == 0)
#else
#define CAN_BE_NEXT(i) IS_PARKED(i)
#endif
/* The oldest parked run, as one statement's snapshot shows it. */
#define OLDEST (CAN_BE_NEXT(0) -> 0 : (CAN_BE_NEXT(1) -> 1 : (CAN_BE_NEXT(2) -> 2 : (CAN_BE_NEXT(3) -> 3 : NOBODY))))

inline unlock_key() { if :: key_lock == _pid + 1 -> key_lock = 0 :: else fi }

/* Lock the flow key; then, in a statement with a fresh snapshot, look whether there is room and for whom; then lock
 * that run, which may mean a wait for somebody who cancels it, and look again if it is gone. */
inline settle(own) {
#ifdef SETTLE_IN_THE_SAME_STATEMENT
    next = (PLACES - HAS_PLACE(own) < LIMIT -> OLDEST : NOBODY);
#endif
#ifndef SETTLE_WITHOUT_LOCK
    atomic { key_lock == 0 -> key_lock = _pid + 1 };
#endif
    do
    :: atomic {
#ifndef SETTLE_IN_THE_SAME_STATEMENT
            next = (PLACES - HAS_PLACE(own) < LIMIT -> OLDEST : NOBODY);
#endif
            if :: next == NOBODY -> break :: else fi
        };
        atomic { run_lock[next] == 0 ->
            if
            :: at[next] == parked -> run_lock[next] = _pid + 1; break
#if defined(GRANT_LOOKS_ONCE) || defined(SETTLE_IN_THE_SAME_STATEMENT)
            :: else -> next = NOBODY; break
#else
            :: else
#endif
            fi
        }
    od
}

inline grant() {
    if
    :: next != NOBODY -> run_lock[next] = 0; at[next] = granted; PROMISE(over_limit, PLACES <= LIMIT)
    :: else
    fi;
    next = NOBODY
}

inline roll_back() {
    if :: next != NOBODY && run_lock[next] == _pid + 1 -> run_lock[next] = 0 :: else fi;
    next = NOBODY; unlock_key(); under_way--
}

/* howdah.enqueue_many, by several clients at once; nobody else sees a run before its commit. */
active [2] proctype Client() {
    byte mine, places;
end: do
    :: atomic {
            if
            :: at[0] == unknown && run_lock[0] == 0 -> mine = 0
            :: at[1] == unknown && run_lock[1] == 0 -> mine = 1
            :: at[2] == unknown && run_lock[2] == 0 -> mine = 2
            :: at[3] == unknown && run_lock[3] == 0 -> mine = 3
            fi;
            run_lock[mine] = _pid + 1; under_way++
        };
#ifdef ENQUEUE_COUNTS_IN_THE_LOCKING_STATEMENT
        places = PLACES;
#endif
#ifndef ENQUEUE_WITHOUT_LOCK
        atomic { key_lock == 0 -> key_lock = _pid + 1 };
#endif
#ifndef ENQUEUE_COUNTS_IN_THE_LOCKING_STATEMENT
        places = PLACES;
#endif
        atomic {                                                    /* COMMIT */
            if :: places < LIMIT -> at[mine] = granted :: else -> at[mine] = parked fi;
            PROMISE(over_limit, PLACES <= LIMIT);
            run_lock[mine] = 0; places = 0; mine = 0; unlock_key(); under_way--
        }
    od
}

active [2] proctype Worker() {
    byte mine, next = NOBODY;
end: do
    :: atomic {
            if
            :: at[0] == granted && run_lock[0] == 0 -> mine = 0
            :: at[1] == granted && run_lock[1] == 0 -> mine = 1
            :: at[2] == granted && run_lock[2] == 0 -> mine = 2
            :: at[3] == granted && run_lock[3] == 0 -> mine = 3
            fi;
            at[mine] = running                                      /* waiting -> running (claim) */
        };
        if
        :: atomic { kills > 0 -> kills--; at[mine] = granted }      /* running -> waiting (lost) */
        :: skip;
            atomic { run_lock[mine] = _pid + 1; under_way++ };           /* the outcome: DELETE of the run */
#ifdef SETTLE_APART
            atomic { at[mine] = gone; run_lock[mine] = 0 };
            if
            :: atomic { kills > 0 -> kills--; under_way-- }
            :: settle(mine); atomic { grant(); unlock_key(); under_way-- }
            fi
#else
            settle(mine);
            if
            :: atomic { at[mine] = gone; run_lock[mine] = 0; grant(); unlock_key(); under_way-- }    /* COMMIT */
            :: atomic { kills > 0 -> kills--; run_lock[mine] = 0; roll_back(); at[mine] = granted }
            fi
#endif
        fi;
        mine = 0
    od
}

#define CAN_CANCEL(i) (cancels > 0 && (at[i] == parked || at[i] == granted) && run_lock[i] == 0)

/* howdah.cancel of a run that waits: one that has a place gives it on, one that is parked has none to give. */
active proctype Canceller() {
    byte mine, next = NOBODY;
    bool had_place;
end: do
    :: atomic {
            if
            :: CAN_CANCEL(0) -> mine = 0
            :: CAN_CANCEL(1) -> mine = 1
            :: CAN_CANCEL(2) -> mine = 2
            :: CAN_CANCEL(3) -> mine = 3
            fi;
            cancels--; run_lock[mine] = _pid + 1; under_way++; had_place = (at[mine] == granted)
        };
        if
#ifndef CANCEL_WITHOUT_SETTLING
        :: had_place -> settle(mine)
        :: !had_place
#else
        :: skip
#endif
        fi;
        if
        :: atomic { at[mine] = gone; run_lock[mine] = 0; grant(); unlock_key(); under_way-- }        /* COMMIT */
        :: atomic { kills > 0 -> kills--; run_lock[mine] = 0; roll_back() }
        fi;
        had_place = false; mine = 0
    od
}

#ifdef CHORE
/* The chore that repairs what a crash has left. */
active proctype Chore() {
    byte next = NOBODY;
    bool has_room;
end: do
    :: atomic { SOME_PARKED && PLACES < LIMIT -> under_way++ };
#ifndef CHORE_WITHOUT_LOCK
        atomic { key_lock == 0 -> key_lock = _pid + 1 };
#endif
        has_room = (PLACES < LIMIT);
        atomic {
            next = (has_room -> OLDEST : NOBODY);
            if :: next != NOBODY && run_lock[next] == 0 -> grant() :: else fi;
            next = NOBODY; has_room = false; unlock_key(); under_way--
        }
    od
}
#endif

#if !defined(UNWATCHED) && !defined(LTL_drains)
active proctype Watch() {
end: do
    :: atomic { under_way == 0 && SOME_PARKED && PLACES < LIMIT -> idle_room = true; assert(!idle_room) }
    od
}
#endif

#ifdef LTL_drains
ltl drains { <> (at[0] == gone && at[1] == gone && at[2] == gone && at[3] == gone) }
#endif
