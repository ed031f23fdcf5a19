from server.ratelimit.policies import Decision, Verdict
class Limiter:
    def __init__(self, link, **k): pass
    async def start(self): pass
    async def close(self): pass
    def forget_denials(self): pass
    async def decide(self, charges, **k):
        return Decision(True, tuple(Verdict(c.policy,c.group,c.subject,True,c.policy.limit,c.policy.limit-1,1000,0) for c in charges), "redis")
    peek = decide
    async def reset(self, *a): pass
