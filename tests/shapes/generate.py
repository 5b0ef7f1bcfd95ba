#!/usr/bin/env python3
"""Traces of shapes that the recordings do not have, by a simulation of the original bus.

usage: generate.py SEED [option=value ...] | zstd -19 > NAME.jsonl.zst

Threads take turns at random between the steps of an operation; a publish holds the lock of its topic, as in the
original. Handlers publish, subscribe, unsubscribe (themselves too), forward and cancel at random, to `depth`.
For `tree=1` (forwards without circles) traces/../check.py of the recordings agrees with the lines.

  forwards in circles, diamonds, changes' handlers act:  201 ops=200 changeops=1                    circles.jsonl.zst
  handlers in handlers, unsubscribing themselves:        424 ops=300 threads=6 topics=3 subs=8
            handler_ops=0.7 depth=6 selfunsub=0.2 changeops=1 sync=0.2                              nested.jsonl.zst
  the same, a subscription that never heard of itself:   416 (as above)                             nested-2.jsonl.zst
  150 topics, 40 subscriptions, 12 threads:              301 ops=500 topics=150 subs=40 threads=12
            handler_ops=0.5                                                                         many.jsonl.zst
  objects alive at the end, many forwards:               507 ops=250 threads=8 topics=8 subs=10
            handler_ops=0.6 forwards=0.3 cancel=0.1 unfreed=1 joins=1 drop_topic=0.2                open.jsonl.zst
"""
import random, sys, json

class Deadlock(Exception): pass

class Sim:
    def __init__(self, seed, **o):
        self.r = random.Random(seed)
        self.o = dict(threads=4, topics=6, ops=60, subs=6, depth=3, interleave=1, selfunsub=0.05, pools=1, forwards=0.15,
                      cancel=0.08, churn=0.1, changeops=0, sync=0.03, unfreed=0, drop_topic=0.05, types=5, handler_ops=0.3, joins=0.3)
        self.o.update(o)
        self.lines = []; self.nT=self.nS=self.nF=self.ny=self.nm=0
        self.T={}; self.S={}; self.F={}; self.y={}
        self.threads={}; self.nh=0
        self.runq=[]  # coroutines (h, gen)
        self.last=0; self.t=0
        self.budget=int(self.o['ops']); self.names=0
        self.live_publishers=0
        self.inflight=0

    def emit(self, h, o, **k):
        d=self.r.randrange(50,5000)
        self.lines.append({'d':d,'h':h,'o':o,**k})

    # --- threads
    def thread(self, name):
        self.nh+=1; h=self.nh
        self.emit(h,'th',n=name)
        return h

    # --- locks: T['own'] = (h, depth)
    def lock(self,h,t):
        T=self.T[t]
        while T['own'] is not None and T['own'][0]!=h:
            yield 'blocked'
        d=T['own'][1] if T['own'] else 0
        T['own']=(h,d+1)
    def unlock(self,h,t):
        T=self.T[t]; d=T['own'][1]-1
        T['own']=(h,d) if d else None

    def mktype(self,h,name=None,v=None):
        self.ny+=1; y=self.ny
        self.y[y]={'n':name or f'other_type_{y}','v':self.r.randrange(8) if v is None else v}
        self.emit(h,'y',y=y,**self.y[y]); return y

    def mktopic(self,h,name=None):
        self.nT+=1; t=self.nT; self.names+=1
        n=name or f'top:{self.names}/{"x"*self.r.randrange(3)}'
        self.T[t]={'n':n,'list':[],'up':{},'own':None,'refs':0,'free':False,'down':{}}
        k={}
        if self.r.random()<.3: k['x']='detail "%d"'%t
        self.emit(h,'tn',T=t,n=n,**k); return t

    def reach_up(self,t):
        """topics from which t can be reached"""
        seen=[t]; q=[t]
        while q:
            x=q.pop()
            for f,a in self.T[x]['up'].items():
                if a not in seen: seen.append(a); q.append(a)
        return seen

    def reach_down(self,t):
        seen=[t]; q=[t]
        while q:
            x=q.pop()
            for f,b in self.T[x]['down'].items():
                if b not in seen: seen.append(b); q.append(b)
        return seen

    def rebuild(self,h,topics):
        for t in topics:
            want=set()
            for d in self.reach_down(t):
                want|={s for s in self.S if self.S[s]['T']==d and self.S[s]['on']}
            L=self.T[t]['list']
            for s in list(L):
                if s not in want:
                    i=L.index(s); L[i]=L[-1]; L.pop()
                    self.emit(h,'su',S=s,T=t,n=len(L))
            for s in sorted(want):
                if s not in L:
                    L.append(s); self.emit(h,'sl',S=s,T=t,n=len(L))

    def accepts(self,s,y,final):
        S=self.S[s]
        if final: return True
        none=S['mode']!=2
        if none and not S['ff']: return True
        if S['mode']==2 and y in S['acc']: return True
        return bool(S['ff'] & self.y[y]['v'])

    def newmsg(self,h,y):
        self.nm+=1; self.emit(h,'m',m=self.nm,y=y); return self.nm

    def publish(self,h,t,m,y,ctx,sync=0):
        yield from self.lock(h,t)
        L=list(self.T[t]['list'])
        k={'s':sync} if sync else {}
        self.emit(h,'p',T=t,m=m,n=len(L),**k)
        n=0; done=None
        for s in L:
            if not self.S[s]['on']: continue
            if not self.accepts(s,y,False): continue
            n+=1
            if self.S[s]['k']=='n':
                yield 'step'
                yield from self.callback(h,s,m,y,0,ctx+1,True)
            else:
                g={'g':1} if s==sync else {}
                self.emit(h,'q',S=s,m=m,**g)
                item={'m':m,'y':y,'g':0,'ctx':ctx+1,'done':False}
                self.S[s]['q'].append(item)
                if s==sync: done=item
            yield 'step'
        if L: self.emit(h,'pe',T=t,m=m,n=n)
        self.unlock(h,t)
        if done:
            while not done['done']: yield 'blocked'

    def callback(self,h,s,m,y,g,ctx,direct):
        k={'g':g} if g else {}
        self.emit(h,'b',S=s,m=m,**k)
        S=self.S[s]; S['running']=True
        change=self.y[y]['n']=='stasis_subscription_change_type'
        can = (not change) or (g&6) or self.o['changeops']
        if g==4: can=False
        p=self.o['handler_ops']/(ctx)
        if can and not S.get('over') and ctx<=self.o['depth']:
            while self.r.random()<p and self.budget>0:
                yield 'step'
                yield from self.op(h,ctx,within=s,direct=direct)
        yield 'step'
        self.emit(h,'e',S=s,m=m); S['running']=False

    def consumer(self,h,s):
        S=self.S[s]
        while True:
            if not S['q']:
                if S['ended']: return
                yield 'idle'; continue
            it=S['q'].pop(0)
            if it['g']: S['over']=True
            yield from self.callback(h,s,it['m'],it['y'],it['g'],it['ctx'],False)
            it['done']=True
            if it['g']:
                S['done']=True; self.emit(h,'sf',S=s); return
            yield 'step'

    def subscribe(self,h,t,ctx):
        self.T[t]['refs']+=1
        yield from self.lock(h,t)
        self.nS+=1; s=self.nS
        k=self.r.choice('nmp' if self.o['pools'] else 'nm')
        self.S[s]={'T':t,'k':k,'acc':set(),'mode':0,'ff':0,'q':[],'on':True,'ended':False,'done':False,'running':False,'busy':0}
        self.emit(h,'s',S=s,T=t,k=k,f=f'other.c:{s}:sub_{k}')
        self.rebuild(h,self.reach_up(t))
        self.unlock(h,t)
        if k!='n':
            hh=self.thread('mailbox') if k=='m' else self.pooled()
            self.runq.append((hh,self.consumer(hh,s)))
        y=self.change
        m=self.newmsg(h,y)
        yield from self.publish(h,t,m,y,ctx)
        S=self.S[s]
        if self.r.random()<.5:
            for _ in range(self.r.randrange(1,3)):
                y=self.r.choice([*self.y])
                S['acc'].add(y); self.emit(h,'fa',S=s,y=y)
            S['mode']=2; self.emit(h,'fm',S=s,v=2,w=0)
        if self.r.random()<.2:
            S['ff']=self.r.randrange(8); self.emit(h,'ff',S=s,v=S['ff'])
        return s

    def pooled(self):
        # own thread id per pooled sub: legal (which pool thread serves does not matter)
        return self.thread('pool')

    def unsubscribe(self,h,s,ctx):
        S=self.S[s]; t=S['T']; S['ended']=True
        self.emit(h,'u',S=s,T=t)
        yield from self.lock(h,t)
        S['on']=False
        self.rebuild(h,self.reach_up(t))
        self.unlock(h,t)
        y=self.change; m=self.newmsg(h,y)
        yield from self.publish(h,t,m,y,ctx)
        skip = not self.accepts(s,y,False)
        if S['k']=='n':
            g=4 if skip else 2
            yield from self.callback(h,s,m,y,g,ctx+1,True)
            S['done']=True
        else:
            self.emit(h,'q',S=s,m=m,g=2)
            S['q'].append({'m':m,'y':y,'g':4 if skip else 2,'ctx':ctx+1,'done':False})
        self.emit(h,'ue',S=s)
        if S['k']=='n': self.emit(h,'sf',S=s)
        self.T[t]['refs']-=1

    def topics(self): return [t for t in self.T if not self.T[t]['free']]

    def op(self,h,ctx,within=0,direct=False):
        self.budget-=1
        o=self.o; x=self.r.random(); ts=self.topics()
        if within and self.r.random()<o['selfunsub']:
            S=self.S[within]
            if not S['ended'] :
                yield from self.unsubscribe(h,within,ctx); return
        if x<o['forwards']:
            a,b=self.r.choice(ts),self.r.choice(ts)
            if o.get('tree'):
                a,b=min(a,b),max(a,b)
                if self.T[a]['down']: return
            if a==b:
                self.emit(h,'fs',A=a); return
            yield from self.lock(h,min(a,b)); 
            yield from self.lock(h,max(a,b))
            self.nF+=1; f=self.nF
            if self.T[a]['free'] or self.T[b]['free']:
                self.nF-=1; self.unlock(h,a); self.unlock(h,b); return
            self.F[f]=(a,b); self.T[a]['down'][f]=b; self.T[b]['up'][f]=a
            self.T[a]['refs']+=1; self.T[b]['refs']+=1
            self.emit(h,'f',F=f,A=a,B=b)
            self.rebuild(h,self.reach_up(a))
            self.unlock(h,a); self.unlock(h,b); return
        x-=o['forwards']
        if x<o['cancel'] :
            if not self.F: return
            f=self.r.choice([*self.F]); a,b=self.F.pop(f)
            yield from self.lock(h,min(a,b)); yield from self.lock(h,max(a,b))
            self.emit(h,'fc',F=f,A=a,B=b)
            del self.T[a]['down'][f]; del self.T[b]['up'][f]
            self.rebuild(h,self.reach_up(a))
            self.unlock(h,a); self.unlock(h,b)
            self.T[a]['refs']-=1; self.T[b]['refs']-=1; return
        x-=o['cancel']
        if x<o['churn']:
            live=[s for s in self.S if not self.S[s]['ended']]
            if self.r.random()<.5 or len(live)<2:
                yield from self.subscribe(h,self.r.choice(ts),ctx)
            else:
                s=self.r.choice(live)
                if s==within or self.S[s]['busy']: return
                yield from self.unsubscribe(h,s,ctx)
                if self.S[s]['k']!='n' and ctx==0 and self.r.random()<o['joins']:
                    self.emit(h,'j',S=s)
                    while not self.S[s]['done']: yield 'blocked'
                    self.emit(h,'je',S=s)
            return
        x-=o['churn']
        if x<o['drop_topic']:
            if self.r.random()<.5: self.mktopic(h)
            else:
                c=[t for t in ts if self.T[t]['refs']==0 and self.T[t]['own'] is None and not self.T[t].get('using')]
                if len(ts)>2 and c:
                    t=self.r.choice(c); self.T[t]['free']=True; self.emit(h,'tf',T=t)
            return
        x-=o['drop_topic']
        t=self.r.choice(ts); y=self.r.choice([y for y in self.y if y!=self.change])
        self.T[t]['using']=self.T[t].get('using',0)+1
        sync=0
        if ctx==0 and x<o['sync']:
            c=[s for s in self.T[t]['list'] if self.S[s]['k']!='n' and not self.S[s]['ended']]
            if c: sync=self.r.choice(c); self.S[sync]['busy']+=1
        m=self.newmsg(h,y)
        yield from self.publish(h,t,m,y,ctx,sync)
        if sync: self.S[sync]['busy']-=1
        self.T[t]['using']-=1
        if self.r.random()<.3: self.emit(h,'mf',m=m)

    def publisher(self,h):
        self.live_publishers+=1
        while self.budget>0:
            yield 'step'
            yield from self.op(h,0)
        self.live_publishers-=1

    def run(self):
        main=self.thread('main')
        self.change=self.mktype(main,'stasis_subscription_change_type',0)
        for _ in range(int(self.o['types'])): self.mktype(main)
        for _ in range(int(self.o['topics'])): self.mktopic(main)
        self.drive(main, self.setup(main))
        for i in range(int(self.o['threads'])):
            h=self.thread('worker') if i else main
            self.runq.append((h,self.publisher(h)))
        self.loop()
        if not self.o['unfreed']:
            self.drive(main,self.teardown(main))
        else:
            self.loop()
        return self.lines

    def setup(self,h):
        for _ in range(int(self.o['subs'])):
            yield from self.subscribe(h,self.r.choice(self.topics()),0)
    def teardown(self,h):
        for s in [s for s in self.S if not self.S[s]['ended']]:
            if self.S[s]['ended']: continue
            yield from self.unsubscribe(h,s,0)
        while any(not S['done'] for S in self.S.values()): yield 'idle'
        for f in [*self.F]:
            a,b=self.F.pop(f); self.emit(h,'fc',F=f,A=a,B=b)
            del self.T[a]['down'][f]; del self.T[b]['up'][f]
            self.rebuild(h,self.reach_up(a))
        for t in self.topics(): self.emit(h,'tf',T=t); self.T[t]['free']=True
        for y in self.y: self.emit(h,'yf',y=y)

    def drive(self,h,g):
        """run g, with others"""
        self.runq.append((h,g)); self.loop(g)

    def loop(self,until=None):
        stuck=0
        while self.runq:
            i=self.r.randrange(len(self.runq)) if self.o['interleave'] else 0
            h,g=self.runq[i]
            steps=1
            if self.r.random()<.5: steps=self.r.randrange(1,12)
            res=None
            for _ in range(steps):
                try: res=next(g)
                except StopIteration:
                    del self.runq[i]
                    if g is until: return
                    res='end'; break
                if res!='step': break
            if res in('blocked','idle'):
                stuck+=1
                if not self.o['interleave']:
                    self.runq.append(self.runq.pop(0))
            else: stuck=0
            if stuck>200*(len(self.runq)+2):
                if until is None and self.live_publishers==0 and all(not S['q'] for S in self.S.values()): return
                raise Deadlock()

if __name__=='__main__':
    seed=int(sys.argv[1]); o={}
    for a in sys.argv[2:]:
        k,v=a.split('='); o[k]=float(v)
    for extra in range(50):
        try:
            s=Sim(seed+extra*100003,**o); L=s.run(); break
        except Deadlock: continue
    else:
        sys.exit('deadlock')
    for l in L: print(json.dumps(l,separators=(',',':')))
