/* The leases of requests in flight: what workers and the store tell each other, and what may go wrong.
 *
 * docs/model.md says what is modelled, what each promise means, and what is left out.
 *
 * What may happen beside calls that are lost, each only with its macro: DELAY (a call given up arrives
 * late), RETRY (a request is asked for again), CRASH, PAUSE, OUTAGE, LOSS, REPLICA. The macros that are
 * marked "mistake" make one, which breaks a promise; test_model.py lists them.
 */

#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef IDS
#define IDS 2 /* leases of one worker that have left a trace anywhere, at the same time */
#endif
#ifndef SHARE
#define SHARE (CAPACITY / WORKERS > 1 -> CAPACITY / WORKERS : 1)
#endif
#ifndef SETTLING
#define SETTLING 2 /* rounds: no less than a lease lives */
#endif

/* A set of leases: bit w * IDS + i stands for lease i of worker w. */
#define set byte
#define LEASE(w, i) (1 << ((w) * IDS + (i)))
#define OF(w) (((1 << IDS) - 1) << ((w) * IDS))
#define LOWEST(s) ((s) & -(s))
#define SIZE(s) (((s) & 1) + ((s) >> 1 & 1) + ((s) >> 2 & 1) + ((s) >> 3 & 1) \
                 + ((s) >> 4 & 1) + ((s) >> 5 & 1) + ((s) >> 6 & 1) + ((s) >> 7 & 1))

#if WORKERS == 2
#define UNION(of) (of(0) | of(1))
#define SUM(of) (of(0) + of(1))
#define EVERY(is) (is(0) && is(1))
#else
#define UNION(of) (of(0) | of(1) | of(2))
#define SUM(of) (of(0) + of(1) + of(2))
#define EVERY(is) (is(0) && is(1) && is(2))
#endif

/* ---- The store ---- */

set leases;     /* unexpired */
set renewed;    /* granted or renewed in this round, whether lost since or not; the others lapse at its end */
bit marker = 1; /* whether there is an epoch */
byte settling;  /* rounds that end until it is settled */

/* ---- The workers ---- */

set running[WORKERS];   /* requests in flight at the provider */
set released[WORKERS];  /* ended, or given back, and not confirmed by the store */
set again[WORKERS];     /* asked for in a call that failed, and to be asked for again */
bit knows[WORKERS] = 1; /* the epoch */
bit unsure[WORKERS];    /* whether the store knows what it holds: it renews before it asks for anyone new */
bit paused[WORKERS], dead[WORKERS];

/* ---- The calls: that of worker w, for which it waits, and LATE, which was given up ---- */

#define LATE WORKERS
#define LAGGARD 0 /* the worker whose calls may be late: of one, for there are states enough */
mtype = { none, on_its_way, granted, refused, forgotten };
typedef Call {
  mtype state = none; /* or, where nobody was asked for, refused: the call was carried out */
  set releases, renewals, admission;
  bit knows           /* whether the call, then its reply, bears the epoch */
};
Call call[WORKERS + 1];
bit overtaken; /* by a call that its worker made after it */

/* ---- A replica that is behind, and takes over, once ---- */

#ifdef REPLICA
set copied;          /* leases that it knows */
bit newer[WORKERS];  /* a call was carried out of which it does not know */
bit behind[WORKERS]; /* and the reply was read */
bit ahead[WORKERS];  /* the worker read a reply of which the store, now, does not know */
bit replaced;
#define NEWER(w) newer[w]
#define AHEAD(w) ahead[w]
#else
#define AHEAD(w) false
#endif

/* ---- What only promises speak of, and what a step needs while it is taken ---- */

byte bound = CAPACITY; /* on the requests in flight */
set revived;           /* leases that a replica brought back */
set before;
byte v;

#define HELD(w) (running[w] | (call[w].state == granted -> call[w].admission : 0))
#define NUMBER(w) SIZE(HELD(w))
#define MOST(w) (NUMBER(w) > SHARE -> NUMBER(w) : SHARE)
#define OWNED(w) (dead[w] -> OF(w) : running[w] | released[w] | again[w] | call[w].admission)
#define LIVING(w) (dead[w] -> 0 : OF(w))
#define TOLD(c) (call[c].releases | call[c].renewals | call[c].admission)
#define UNUSED(w) (OF(w) & ~(OWNED(w) | TOLD(w) | TOLD(LATE) | leases))

/* ---- Promises ---- */

#define PROMISE(name, holds) \
  if :: holds :: else -> printf("broken: "); printf(#name); printf("\n"); assert(false) fi

#define COVERED(w) ((running[w] & ~leases) == 0 || !marker || !knows[w] || unsure[w] || AHEAD(w) || paused[w])
#define WITHIN(w) (SIZE(running[w]) <= CAPACITY)
#define CALM (marker && settling == 0 && (UNION(HELD) & ~leases) == 0)

inline look()
{
  revived = revived & leases;
  PROMISE(covered, EVERY(COVERED));
  PROMISE(owned, (leases & ~(UNION(OWNED) | revived)) == 0);
  PROMISE(worker_bounded, EVERY(WITHIN));
#ifdef HOPED
  PROMISE(hoped, SUM(NUMBER) <= HOPED);
#endif
#if !defined(PAUSE) && !defined(OUTAGE)
  if
  :: CALM && SUM(NUMBER) < bound -> bound = (SUM(NUMBER) > CAPACITY -> SUM(NUMBER) : CAPACITY)
  :: else
  fi;
  PROMISE(bounded, SUM(NUMBER) <= bound);
#ifndef REPLICA
  PROMISE(bounded_ever, SUM(NUMBER) <= CAPACITY + (WORKERS - 1) * SHARE);
#ifndef LOSS
  PROMISE(leases_bounded, SIZE(leases & UNION(LIVING)) <= CAPACITY)
#endif
#endif
#endif
}

/* ---- What the store does ---- */

inline drop(s)
{
  before = leases;
  leases = leases & ~(s);
  renewed = renewed & ~(s);
#ifdef COUNTER /* mistake: a counter goes down, whoever it is that comes back */
  leases = ((s) != 0 && before == leases -> leases & ~LOWEST(leases) : leases);
#endif
  PROMISE(frees_its_own, (before & ~leases & ~(s)) == 0);
  before = 0
}

inline hold(s)
{
  leases = leases | (s);
  renewed = renewed | (s)
}

inline begin_epoch()
{
  marker = 1;
#ifndef NO_EPOCH /* mistake: nobody is told, and everything goes on */
  settling = SETTLING;
  for (v : 0 .. WORKERS - 1) {
    knows[v] = 0;
    call[v].knows = 0
  };
  call[LATE].knows = 0;
#endif
#ifdef REPLICA
  copied = (replaced -> 0 : leases);
#endif
  v = 0
}

#define FULL(c) (SIZE(leases & ~call[c].admission) >= CAPACITY)
#ifdef NO_SHARE /* mistake */
#define ENOUGH(c) false
#else
#define ENOUGH(c) (settling > 0 && c != LATE && SIZE(running[c]) >= SHARE)
#endif

inline admit(c)
{
  if
  :: !FULL(c) && !ENOUGH(c) ->
     hold(call[c].admission);
     call[c].state = granted
  :: FULL(c) || ENOUGH(c) ->
#ifndef KEEPS_REFUSED /* mistake: what an earlier try was granted stays */
     drop(call[c].admission);
#endif
     call[c].state = refused
  fi
}

inline carry_out(c)
{
  if
  :: !marker -> begin_epoch()
  :: marker
  fi;
  drop(call[c].releases);
#ifdef STRANGER_RENEWS /* mistake: a call that does not know the epoch renews */
  hold(call[c].renewals);
#endif
  if
  :: !call[c].knows -> call[c].state = forgotten
  :: call[c].knows ->
#ifdef NO_REASSERT /* mistake: a renewal brings nothing back */
     hold(call[c].renewals & leases);
#else
     hold(call[c].renewals);
#endif
     if
     :: call[c].admission != 0 -> admit(c)
     :: call[c].admission == 0 -> call[c].state = refused
     fi
  fi;
  call[c].knows = 1
}

/* ---- What workers do ---- */

#define RUNS(w) (!paused[w] && !dead[w])
#define IDLE(w) (RUNS(w) && call[w].state == none)
#define WAITS(w) (RUNS(w) && call[w].state != none)
#define MAY_RENEW(w) (running[w] != 0 || unsure[w])
#ifdef ASKS_FIRST /* mistake */
#define MAY_ASK(w) true
#else
#define MAY_ASK(w) (!unsure[w])
#endif
#define WANTED(w) (again[w] != 0 -> again[w] : (MAY_ASK(w) -> LOWEST(UNUSED(w)) : 0))

inline make_call(w, renews, asks)
{
  call[w].admission = (asks -> WANTED(w) : 0);
  call[w].releases = released[w];
  call[w].renewals = (renews -> running[w] : 0);
  call[w].knows = knows[w];
  call[w].state = on_its_way;
  again[w] = 0;
  printf("worker %d calls: releases %d, renews %d, asks for %d\n",
         w, call[w].releases, call[w].renewals, call[w].admission)
}

inline clear(c)
{
  call[c].state = none;
  call[c].releases = 0;
  call[c].renewals = 0;
  call[c].admission = 0;
  call[c].knows = 0
}

inline clear_late()
{
  clear(LATE);
  overtaken = 0
}

inline read_reply(w)
{
  printf("worker %d reads: %e\n", w, call[w].state);
  if
  :: call[w].state == granted ->
     PROMISE(begins_covered, (call[w].admission & ~leases) == 0 || !call[w].knows || !marker);
     running[w] = running[w] | call[w].admission
  :: call[w].state == refused ->
     unsure[w] = unsure[w] && (running[w] & ~call[w].renewals) != 0
  :: call[w].state == forgotten ->
     released[w] = released[w] | call[w].admission;
     unsure[w] = 1
  fi;
  released[w] = released[w] & ~call[w].releases;
  knows[w] = call[w].knows;
#ifdef REPLICA
  behind[w] = behind[w] || newer[w];
#endif
  clear(w)
}

inline leave_call(w)
{
  if
#ifdef DELAY
  :: w == LAGGARD && call[w].state == on_its_way ->
     call[LATE].state = on_its_way;
     call[LATE].renewals = call[w].renewals;
     call[LATE].admission = call[w].admission;
     call[LATE].knows = call[w].knows;
     overtaken = 0
#endif
  :: else
  fi;
  clear(w)
}

inline give_up(w)
{
#ifndef KEEPS_LOST_GRANT /* mistake: what may have been granted is not given back */
  released[w] = released[w] | call[w].admission | again[w];
#endif
  again[w] = 0;
  unsure[w] = 1;
  leave_call(w)
}

inline end_request(w, i)
{
  printf("worker %d: request %d ends\n", w, LEASE(w, i));
  running[w] = running[w] & ~LEASE(w, i);
  released[w] = released[w] | LEASE(w, i)
}

/* ---- What may happen to a worker ---- */

active [WORKERS] proctype worker()
{
end:
  do
  /* It makes a call: to tell what was released, to renew, or to ask. */
  :: d_step { IDLE(_pid) && again[_pid] == 0 && released[_pid] != 0 -> make_call(_pid, 0, 0) }
  :: d_step { IDLE(_pid) && again[_pid] == 0 && MAY_RENEW(_pid) -> make_call(_pid, 1, 0) }
  :: d_step { IDLE(_pid) && WANTED(_pid) != 0 -> make_call(_pid, 0, 1) }

  /* The store carries it out. */
  :: d_step { call[_pid].state == on_its_way ->
#ifdef REPLICA
       marker = marker && !ahead[_pid];
       ahead[_pid] = 0;
       newer[_pid] = !replaced;
#endif
       carry_out(_pid);
       printf("the call of worker %d is carried out: %e\n", _pid, call[_pid].state);
       PROMISE(tells_first, call[_pid].state != granted || !RUNS(_pid) || (running[_pid] & ~leases) == 0);
       overtaken = overtaken || (call[LATE].state != none && _pid == LAGGARD);
       look()
     }

  /* It reads the reply, or does not, or will try again. */
  :: d_step { WAITS(_pid) && call[_pid].state != on_its_way -> read_reply(_pid); look() }
  :: d_step { WAITS(_pid) -> printf("worker %d gives its call up\n", _pid); give_up(_pid); look() }
#ifdef RETRY
  :: d_step { WAITS(_pid) && call[_pid].admission != 0 ->
       printf("worker %d will ask again\n", _pid);
       again[_pid] = call[_pid].admission;
       leave_call(_pid);
       look()
     }
#endif

  /* A request ends. */
  :: d_step { RUNS(_pid) && (running[_pid] & LEASE(_pid, 0)) != 0 -> end_request(_pid, 0); look() }
#if IDS > 1
  :: d_step { RUNS(_pid) && (running[_pid] & LEASE(_pid, 1)) != 0 -> end_request(_pid, 1); look() }
#endif
#if IDS > 2
  :: d_step { RUNS(_pid) && (running[_pid] & LEASE(_pid, 2)) != 0 -> end_request(_pid, 2); look() }
#endif

#ifdef CRASH
  :: d_step { RUNS(_pid) ->
       printf("worker %d dies\n", _pid);
       leave_call(_pid);
       running[_pid] = 0;
       released[_pid] = 0;
       again[_pid] = 0;
       knows[_pid] = 0;
       unsure[_pid] = 0;
       dead[_pid] = 1;
       look()
     }
  :: d_step { dead[_pid] && (OF(_pid) & (leases | TOLD(LATE))) == 0 ->
       printf("a new worker %d begins\n", _pid);
       dead[_pid] = 0
     }
#endif

#ifdef PAUSE
  :: d_step { RUNS(_pid) && running[_pid] != 0 -> printf("worker %d stops\n", _pid); paused[_pid] = 1 }
  :: d_step { paused[_pid] ->
       printf("worker %d goes on\n", _pid);
       paused[_pid] = 0;
#ifdef READS_OLD_REPLY /* mistake: a reply that waited during the pause counts */
       unsure[_pid] = 1;
#else
       give_up(_pid);
#endif
       look()
     }
#endif

#ifdef OUTAGE
  :: d_step { RUNS(_pid) && unsure[_pid] && SIZE(running[_pid]) < SHARE && UNUSED(_pid) != 0 ->
       printf("worker %d decides alone\n", _pid);
       running[_pid] = running[_pid] | LOWEST(UNUSED(_pid));
       look()
     }
#endif
  od
}

/* ---- What may happen to all ---- */

#define HEARD(w) (call[w].state == none || call[w].state == on_its_way)
#define HAS_READ(w) (HEARD(w) || (TOLD(w) & leases & ~renewed) == 0)
#ifdef OUTAGE
#define HAS_TOLD(w) (unsure[w] || ((HELD(w) | OWNED(w) & leases) & ~renewed) == 0)
#else
#define HAS_TOLD(w) (((HELD(w) | OWNED(w) & leases) & ~renewed) == 0)
#endif
#define IN_TIME(w) (!RUNS(w) || (HAS_READ(w) && HAS_TOLD(w)))
#define ROOM (CAPACITY - SIZE(copied & UNION(HELD)))

active proctype world()
{
end:
  do
  /* A round ends. A worker that runs has renewed what it holds in it, and told what it released. */
  :: d_step { EVERY(IN_TIME) && (leases != 0 || settling > 0) ->
       printf("a round ends; %d lapse\n", leases & ~renewed);
       leases = leases & renewed;
       renewed = 0;
       settling = (settling > 0 -> settling - 1 : 0);
       look()
     }

  /* A call that was given up arrives, or never does. */
  :: d_step { call[LATE].state == on_its_way ->
       if
#ifdef LATE_COUNTS /* mistake */
       :: true -> carry_out(LATE)
#else
       :: !overtaken -> carry_out(LATE)
       :: overtaken
#endif
       fi;
       printf("a call that was given up arrives: %e\n", call[LATE].state);
       clear_late();
       look()
     }
  :: d_step { call[LATE].state == on_its_way -> clear_late() }

#ifdef LOSS
  :: d_step { marker || leases != 0 ->
       printf("the store loses %d\n", leases);
       bound = (SUM(MOST) > CAPACITY -> SUM(MOST) : CAPACITY);
       leases = 0;
       marker = 0;
       settling = 0;
       overtaken = 0;
       look()
     }
#endif

#ifdef REPLICA
  :: d_step { !replaced && (copied != leases || SUM(NEWER) != 0) ->
       printf("the replica is told\n");
       copied = leases;
       for (v : 0 .. WORKERS - 1) {
         newer[v] = 0;
         behind[v] = 0
       };
       v = 0
     }
  :: d_step { !replaced && EVERY(HEARD) -> /* a reply that is read later might as well be read before */
       printf("the replica takes over: %d instead of %d\n", copied, leases);
       bound = (SUM(MOST) > SUM(NUMBER) + ROOM -> SUM(MOST) : SUM(NUMBER) + ROOM);
       bound = (bound > CAPACITY -> bound : CAPACITY);
       leases = copied;
       revived = leases & ~UNION(OWNED);
       for (v : 0 .. WORKERS - 1) {
         ahead[v] = behind[v];
         newer[v] = 0;
         behind[v] = 0
       };
       v = 0;
       copied = 0;
       replaced = 1;
       look()
     }
#endif
  od
}
