"""The rate limiter: exact, shared by all processes, usable without aiohttp.

```python
async with Limiter.from_url("redis://localhost") as limiter:
    decision = await limiter.hit("user:42", Policy.parse("60/minute"))
```
"""

from .calendar import Calendar
from .limiter import Limiter
from .memory import MemoryLink
from .policies import Charge, Decision, Policy, Verdict, charges_of

__all__ = ["Calendar", "Charge", "Decision", "Limiter", "MemoryLink", "Policy", "Verdict", "charges_of"]
