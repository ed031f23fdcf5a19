--[[
  How long the keys of a sliding window live.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Sets: life, in milliseconds, and kept, until when the keys then live at least, in seconds after base

  Half a window longer than the newest entry needs, and two margins, so that it need not be set anew with each charge.
  Put in where span, now and base are known.
]]
-- @include kept_longer
life = math.ceil(span * 1.5 / 1000) + 2 * KEPT_LONGER_MS
kept = math.floor((now - base) / 1000000 + life / 1000)
