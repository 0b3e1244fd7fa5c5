/* Creating tasks: ids that are drawn before the statement is sent, answers that are lost, dedup keys.
 *
 * Stands for sql/functions/enqueue_rows.sql (the id), sql/functions/take_keys.sql and sql/functions/holds_key.sql (the
 * key), sql/functions/retake_key.sql (REPLAYS) and sql/queries/dedup_key/delete_free.sql (FREES).
 *
 * Promises, by the flag that is set where one is broken:
 *   task_lost          a task that was acknowledged is stored
 *   stored_twice       one request stores at most one task, however often it is repeated
 *   two_in_force       of the tasks with one dedup key at most one is in force
 *   named_nothing      who is told that its task was there before is told the id of a task that is stored
 *   misnamed           nobody whose own task is stored is told another's id
 *   replaced_running   what is replaced waits, and never runs
 *   missed_its_news    (STARTED) whom a newcomer was merged with starts after the newcomer's commit, and so sees it
 *   key_lost           whenever no transaction is open, the row of the key names the task that is in force
 *   ltl answered       every request is answered in the end
 *
 * check: holds
 * check: holds with DEDUP, FREES
 * check: holds with DEDUP, TWIN
 * check: holds with DEDUP, STARTED, TWIN
 * check: holds with DEDUP, REPLACES, FREES
 * check: holds with DEDUP, REPLAYS=1, FREES
 * check: holds with DEDUP, STARTED, REPLACES, REPLAYS=1
 * check: holds ltl answered with DEDUP, TWIN
 * check: holds ltl answered with DEDUP, KEY_MUST_BE_FREE
 * check: ACKNOWLEDGED_BEFORE_COMMIT breaks task_lost
 * check: NEW_ID_AT_EACH_TRY breaks stored_twice
 * check: KEY_WITHOUT_LOCK breaks two_in_force with DEDUP, UNWATCHED
 * check: JUDGES_IN_THE_LOCKING_STATEMENT breaks two_in_force with DEDUP, UNWATCHED
 * check: KEY_IN_A_TRANSACTION_OF_ITS_OWN breaks two_in_force with DEDUP, UNWATCHED
 * check: KEY_FIRST_AND_HELD_BY_ITS_ROW breaks named_nothing with DEDUP
 * check: NO_SECOND_LOOK_FOR_ITS_TASK breaks misnamed with DEDUP, TWIN
 * check: REPLACE_WITHOUT_RUN_LOCK breaks replaced_running with DEDUP, REPLACES
 * check: MERGE_WITHOUT_RUN_LOCK breaks missed_its_news with DEDUP, STARTED
 * check: REPLAY_WITHOUT_ITS_KEY breaks two_in_force with DEDUP, REPLAYS=1, UNWATCHED
 * check: FREE_WITHOUT_A_SECOND_LOOK breaks key_lost with DEDUP, FREES
 * check: FREE_BY_TASK_ALONE breaks key_lost with DEDUP, FREES, REPLAYS=1
 * check: HELD_BY_ITS_ROW breaks ltl answered with DEDUP, KEY_MUST_BE_FREE
 *
 * Abstractions: two clients ask for one task each, under the same dedup key if DEDUP is set. Without STARTED a task is in
 * force until it has ended (until: finished); with it until its first claim (until: started): one that waits for another
 * attempt has started. The end of a task writes nothing about keys; whether a key is held is judged when somebody wants
 * it. REPLACES is on_conflict: replace of the second client. KEY_MUST_BE_FREE is on_conflict: reject, with a client that
 * tries again until the key is free. TWIN is a second try of the first client's request, sent while the server still works
 * at the one whose connection was lost. UNWATCHED leaves key_lost out, so that a search goes on to other promises.
 * The statement that wants the key inserts its row, or locks it as it is then, and waits for whoever has just taken it.
 */

#ifndef REPLAYS
#define REPLAYS 0
#endif
#define CLIENTS 2
#define IDS 5               /* 1 and 2 are drawn by the clients; the mutant that draws anew goes on from 3 */

mtype = { absent, waits, runs, ended };

mtype at[IDS] = absent;     /* rows of `tasks` and `runs`, as committed */
bool has_started[IDS] = false;   /* the run's claim_no is not that of the row of the key any more */
byte run_lock[3] = 0;
byte key_task = 0;          /* the row of `dedup_keys`: whom it names; 0 is no row */
byte key_taken = 0;         /* its taken_at */
byte key_lock = 0;          /* the transaction that has written or locked that row */
byte under_way = 0;
byte kills = 1, broken = 1, replays = REPLAYS;

byte drawn = CLIENTS;
byte stored[3] = 0;         /* tasks of each client */
byte open_count = CLIENTS;  /* requests that are not answered */

bool task_lost, stored_twice, two_in_force, named_nothing, misnamed, replaced_running, missed_its_news, key_lost;
#define PROMISE(flag, condition) if :: !(condition) -> flag = true; assert(!flag) :: else fi

#define ME (_pid + 1)
/* howdah.holds_key */
#ifdef STARTED
#define HOLDS(i) (at[i] == waits && !has_started[i])
#else
#define HOLDS(i) (at[i] == waits || at[i] == runs)
#endif
#define IN_FORCE (HOLDS(1) && HOLDS(2) -> 2 : (HOLDS(1) || HOLDS(2) -> 1 : 0))

inline store() {
    if
    :: at[id] == absent ->                                          /* new -> waiting (enqueue) */
        at[id] = waits; stored[me]++;
        PROMISE(stored_twice, stored[me] <= 1)
    :: else                 /* ON CONFLICT (id): a repeat of what was stored */
    fi
}

inline take_key(task) { key_task = task; key_taken++ }

inline unlock() {
    if :: run_lock[1] == ME -> run_lock[1] = 0 :: else fi;
    if :: run_lock[2] == ME -> run_lock[2] = 0 :: else fi;
    key_lock = 0; under_way--
}

proctype Client(byte me) {
    byte id = me, found = 0;
    bool is_held, was_held_1, was_held_2, is_replaceable;

again:
    atomic { found = 0; is_held = false; is_replaceable = false; was_held_1 = false; was_held_2 = false };
#ifdef NEW_ID_AT_EACH_TRY
    if
    :: atomic { at[id] != absent && drawn < IDS - 1 -> drawn++; id = drawn }
    :: atomic { at[id] == absent }
    fi;
#endif
#ifdef ACKNOWLEDGED_BEFORE_COMMIT
    if
    :: atomic { kills > 0 -> kills--; PROMISE(task_lost, at[id] != absent); goto answered }
    :: skip
    fi;
#endif
#ifndef DEDUP
    atomic { store() };
#else
    /* A task that is stored already has nothing to do with keys any more. */
    if
    :: atomic { at[id] != absent -> goto done }
    :: atomic { at[id] == absent }
    fi;
#ifdef JUDGES_IN_THE_LOCKING_STATEMENT
    atomic { was_held_1 = HOLDS(1); was_held_2 = HOLDS(2) };
#endif
    atomic {                                                        /* INSERT … ON CONFLICT DO UPDATE, which locks */
#ifndef KEY_WITHOUT_LOCK
        key_lock == 0 -> key_lock = ME;
#endif
        under_way++;
        found = (key_task == 0 -> id : key_task)
    };
#if defined(STARTED) || defined(REPLACES)
#if !defined(REPLACE_WITHOUT_RUN_LOCK) && !defined(MERGE_WITHOUT_RUN_LOCK)
    /* One that is leased is not locked: the lock may last as long as the caller's transaction. */
    atomic {
        found == id || at[found] != waits || run_lock[found] == 0 ->
        if :: found != id && at[found] == waits -> run_lock[found] = ME :: else fi
    };
#endif
#endif
    /* A statement of its own, with a fresh snapshot. */
    atomic {
#if defined(JUDGES_IN_THE_LOCKING_STATEMENT)
        is_held = found != id && (found == 1 -> was_held_1 : was_held_2);
#elif defined(HELD_BY_ITS_ROW) || defined(KEY_FIRST_AND_HELD_BY_ITS_ROW)
        is_held = found != id;
#else
        is_held = found != id && HOLDS(found);
#endif
#ifdef REPLACES
        is_replaceable = is_held && me == 2 && at[found] == waits;
#endif
#ifndef NO_SECOND_LOOK_FOR_ITS_TASK
        /* The first try was under way when this one looked, and has lost the key since: serialization_failure. */
        if :: found != id && at[id] != absent -> unlock(); goto again :: else fi
#endif
    };
#ifdef KEY_IN_A_TRANSACTION_OF_ITS_OWN
    atomic { if :: !is_held -> take_key(id) :: else fi; key_lock = 0 };
#endif
    if
    :: atomic { kills > 0 -> kills--;
#ifdef KEY_FIRST_AND_HELD_BY_ITS_ROW
            if :: !is_held -> take_key(id) :: else fi;            /* committed before the task was stored */
#endif
            unlock(); goto again }
    :: atomic {                                                     /* COMMIT */
            if
            :: !is_held -> take_key(id); store()
            :: is_held && is_replaceable ->                         /* waiting -> cancelled (replace) */
                PROMISE(replaced_running, at[found] == waits);
                at[found] = ended; take_key(id); store()
            :: is_held && !is_replaceable ->
                PROMISE(misnamed, at[id] == absent);
                PROMISE(named_nothing, at[found] != absent);
#ifdef STARTED
                PROMISE(missed_its_news, !has_started[found]);
#endif
                skip
            fi;
            PROMISE(two_in_force, IN_FORCE <= 1);
            unlock();
            if :: is_held && !is_replaceable -> goto there :: else fi
        }
    fi;
#endif
done:
    if
    :: atomic { broken > 0 -> broken--; goto again }                /* committed, but the answer is lost */
    :: skip
    fi;
    atomic { PROMISE(task_lost, at[id] != absent) };
    goto answered;
there:
#ifdef KEY_MUST_BE_FREE
    goto again;
#endif
    skip;
answered:
    atomic { open_count--; found = 0; is_held = false; is_replaceable = false; was_held_1 = false; was_held_2 = false }
}

#define CLAIMABLE(i) (at[i] == waits && run_lock[i] == 0)

/* Workers: a claim passes by what is locked, an end writes nothing about keys, and the next attempt is a claim more. */
active proctype Worker() {
end: do
    :: atomic { CLAIMABLE(1) -> at[1] = runs; has_started[1] = true }   /* waiting -> running (claim) */
    :: atomic { CLAIMABLE(2) -> at[2] = runs; has_started[2] = true }
    :: atomic { at[1] == runs -> at[1] = ended }
    :: atomic { at[2] == runs -> at[2] = ended }
    od
}

#if REPLAYS > 0
#define CAN_REPLAY(i) (replays > 0 && at[i] == ended)

/* howdah.replay: the dead letter takes its key again, or is refused. */
active proctype Replay() {
    byte id;
end: do
    :: atomic {
            if
            :: CAN_REPLAY(1) -> id = 1
            :: CAN_REPLAY(2) -> id = 2
            fi;
            replays--; under_way++
        };
#ifndef REPLAY_WITHOUT_ITS_KEY
        atomic { key_lock == 0 -> key_lock = ME };
#endif
        atomic {                                                    /* failed -> waiting (replay) */
            if
#ifdef REPLAY_WITHOUT_ITS_KEY
            :: true -> at[id] = waits; has_started[id] = false; under_way--;
#else
            :: key_task != 0 && key_task != id && HOLDS(key_task) -> unlock()
            :: else -> take_key(id); at[id] = waits; has_started[id] = false; unlock();
#endif
                PROMISE(two_in_force, IN_FORCE <= 1)
            fi;
            id = 0
        }
    od
}
#endif

#ifdef FREES
/* The chore: it judges by what it saw, and deletes what is still the same, unless somebody has it locked. */
active proctype Chore() {
    byte task, taken;
end: do
    :: atomic { key_task != 0 && !HOLDS(key_task) && key_lock == 0 -> task = key_task; taken = key_taken };
        atomic {
            if
#if defined(FREE_WITHOUT_A_SECOND_LOOK)
            :: key_lock == 0 -> key_task = 0
#elif defined(FREE_BY_TASK_ALONE)
            :: key_lock == 0 && key_task == task -> key_task = 0
#else
            :: key_lock == 0 && key_task == task && key_taken == taken -> key_task = 0
#endif
            :: else
            fi;
            task = 0; taken = 0
        }
    od
}
#endif

#if defined(DEDUP) && !defined(UNWATCHED) && !defined(LTL_answered)
active proctype Watch() {
end: do
    :: atomic { under_way == 0 && IN_FORCE > 0 && (key_task == 0 || !HOLDS(key_task)) -> key_lost = true; assert(!key_lost) }
    od
}
#endif

init {
    atomic {
        run Client(1); run Client(2);
#ifdef TWIN
        open_count++; run Client(1)
#endif
    }
}

#ifdef LTL_answered
ltl answered { <> (open_count == 0) }
#endif
