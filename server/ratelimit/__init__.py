"""The rate limiter: exact, shared by all processes, usable without aiohttp.

```python
limiter = Limiter(link)
decision = await limiter.decide([Charge(Policy("standard", 60, 60_000), "classes", "user:42")])
```
"""

from .limiter import Limiter
from .policies import Charge, Decision, Policy, Verdict

__all__ = ["Charge", "Decision", "Limiter", "Policy", "Verdict"]
