/* Creating tasks: ids that are drawn before the statement is sent, answers that are lost, dedup keys.
 *
 * Promises, by the flag that is set where one is broken:
 *   task_lost       a task that was acknowledged is stored
 *   stored_twice    one request stores at most one task, however often it is repeated
 *   two_live        of the tasks with one dedup key at most one waits or runs
 *   named_nothing   who is told that its task was there before is told the id of a task that is stored
 *   key_kept        whenever no transaction is open, a key that is taken belongs to a task that waits or runs
 *   key_lost        whenever no transaction is open, a task that waits or runs holds its key
 *   ltl answered    every request is answered in the end
 *
 * check: holds
 * check: holds with DEDUP
 * check: holds ltl answered with DEDUP
 * check: ACKNOWLEDGED_BEFORE_COMMIT breaks task_lost
 * check: NEW_ID_AT_EACH_TRY breaks stored_twice
 * check: SELECT_THEN_INSERT breaks two_live with DEDUP, UNWATCHED
 * check: CONFLICT_LOOKS_ONCE breaks named_nothing with DEDUP
 * check: KEY_IN_A_TRANSACTION_OF_ITS_OWN breaks named_nothing with DEDUP
 * check: KEY_FREED_AFTER_THE_END breaks key_kept with DEDUP
 * check: KEY_FREED_BY_NAME breaks key_lost with DEDUP
 * check: KEY_FREED_AFTER_THE_END breaks ltl answered with DEDUP, KEY_MUST_BE_FREE
 *
 * Abstractions: two clients ask for one task each, under the same dedup key if DEDUP is set, which holds until the task
 * has ended (until: finished). A unique index makes the second INSERT wait for the transaction that holds the key.
 * KEY_MUST_BE_FREE is on_conflict: reject, with a client that tries again until the key is free. UNWATCHED leaves
 * key_kept and key_lost out, so that a search goes on to the other promises.
 */

#define CLIENTS 2
#define IDS 5               /* 1 and 2 are drawn by the clients; the mutant that draws anew goes on from 3 */

mtype = { absent, waits, ended };

mtype at[IDS] = absent;     /* rows of `tasks` and `runs`, as committed */
byte key_holder = 0;        /* the row of `dedup_keys`: the task that holds the key; 0 is no row */
byte key_lock = 0;          /* the transaction that has written that row */
byte under_way = 0;
byte kills = 1, broken = 1;

byte drawn = CLIENTS;
byte stored[3] = 0;         /* tasks of each client */
bool is_answered[3] = false;

bool task_lost, stored_twice, two_live, named_nothing, key_kept, key_lost;
#define PROMISE(flag, condition) if :: !(condition) -> flag = true; assert(!flag) :: else fi
#define IS_LIVE(i) (at[i] == waits -> 1 : 0)

inline store() {
    if
    :: at[id] == absent ->
        at[id] = waits; stored[me]++;
        PROMISE(stored_twice, stored[me] <= 1)
    :: else                 /* ON CONFLICT (id): a repeat of what was stored */
    fi
}

proctype Client(byte me) {
    byte id = me, found = 0;
    bool was_free;

again:
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
#ifdef SELECT_THEN_INSERT
    atomic { found = key_holder; under_way++ };
    atomic {
        if
        :: found != 0 -> under_way--; goto there
        :: found == 0 -> key_holder = id; store(); under_way--;
            PROMISE(two_live, IS_LIVE(1) + IS_LIVE(2) <= 1)
        fi
    };
#else
    atomic {                                                        /* INSERT … ON CONFLICT DO NOTHING, which waits */
        key_lock == 0 ->
        was_free = (key_holder == 0 || key_holder == id);
        if
        :: was_free && key_holder == 0 && at[id] != absent -> goto answered   /* a repeat: the task has ended meanwhile */
        :: was_free && !(key_holder == 0 && at[id] != absent) -> key_lock = me; under_way++
        :: else
        fi
    };
    if
    :: atomic { was_free ->
#ifdef KEY_IN_A_TRANSACTION_OF_ITS_OWN
            key_holder = id; key_lock = 0
        };
        if
        :: atomic { kills > 0 -> kills--; under_way--; goto gone }
        :: skip
        fi;
        atomic {
#else
        };
        if
        :: atomic { kills > 0 -> kills--; key_lock = 0; under_way--; goto again }     /* rolled back, and tried again */
        :: skip
        fi;
        atomic {
#endif
            key_holder = id; store(); key_lock = 0; under_way--;                        /* COMMIT */
            PROMISE(two_live, IS_LIVE(1) + IS_LIVE(2) <= 1)
        }
    :: atomic { !was_free -> skip };
#ifdef KEY_MUST_BE_FREE
        goto again
#else
        atomic { found = key_holder };                              /* whose it is: a second statement */
#ifdef CONFLICT_LOOKS_ONCE
        goto there
#else
        if
        :: atomic { found == 0 -> goto again }                      /* free meanwhile */
        :: atomic { found != 0 -> goto there }
        fi
#endif
#endif
    fi;
#endif
#endif
    if
    :: atomic { broken > 0 -> broken--; goto again }                /* committed, but the answer is lost */
    :: skip
    fi;
    atomic { PROMISE(task_lost, at[id] != absent) };
    goto answered;
there:
    atomic { PROMISE(named_nothing, found != 0 && at[found] != absent) };
answered:
    atomic { is_answered[me] = true; found = 0; was_free = false };
gone:
    skip
}

/* A worker ends tasks; the end frees the key in the same transaction. */
active proctype Ends() {
    byte id, seen;
end: do
    :: atomic {
            if
            :: at[1] == waits -> id = 1
            :: at[2] == waits -> id = 2
            fi;
            under_way++
        };
#ifdef DEDUP
#if defined(KEY_FREED_AFTER_THE_END)
        at[id] = ended;
        if
        :: atomic { kills > 0 -> kills--; under_way-- }
        :: atomic { key_lock == 0 -> if :: key_holder == id -> key_holder = 0 :: else fi; under_way-- }
        fi;
#elif defined(KEY_FREED_BY_NAME)
        atomic { at[id] = ended; key_holder = 0 };
        atomic { key_lock == 0 -> key_holder = 0; under_way-- };    /* a repeat, after the answer was lost */
#else
        atomic { key_lock == 0 ->                                   /* COMMIT */
            at[id] = ended; if :: key_holder == id -> key_holder = 0 :: else fi; under_way-- };
#endif
#else
        atomic { at[id] = ended; under_way-- };
#endif
        id = 0
    od
}

#if defined(DEDUP) && !defined(UNWATCHED) && !defined(LTL_answered)
active proctype Watch() {
end: do
    :: atomic { under_way == 0 && key_holder != 0 && at[key_holder] != waits -> key_kept = true; assert(!key_kept) }
    :: atomic { under_way == 0 && key_holder == 0 && IS_LIVE(1) + IS_LIVE(2) > 0 -> key_lost = true; assert(!key_lost) }
    od
}
#endif

init { atomic { run Client(1); run Client(2) } }

#ifdef LTL_answered
ltl answered { <> (is_answered[1] && is_answered[2]) }
#endif
