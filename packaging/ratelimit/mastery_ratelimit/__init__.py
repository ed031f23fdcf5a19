"""An exact rate limiter for asyncio, on Redis, Valkey or in memory.

```python
async with Limiter.from_url("redis://localhost") as limiter:
    decision = await limiter.hit("user:42", Policy.parse("60/minute"))
```
"""

from .ratelimit import *  # noqa: F403 - the same names
from .ratelimit import __all__ as __all__
