--[[
  The calendar: a count that begins anew when a day, a week or a month does, wherever that is.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges
  Gives: weigh_calendar(_, value, key, pages_at, now, limit, period, cost), called as weigh_window is

  The state: 3 + 4 * edition (1 byte, as of a sliding window's log), the period's start and end (4 bytes each, minutes
  since 1970; 0: not known), and the units charged in it (4 bytes). A caller knows the period around its own clock; the
  server's clock decides: past its end it is the next one, whose end is not known yet, before its start the one before.

  The clock never goes back for a key: a state of a later period goes on to be counted. A reload of zone or length takes
  over what was counted if most of the old period lies in the new one.
]]

-- Weighs a charge of `cost` units at `now`, microseconds; `period` is its start in minutes * 65536 + its minutes. Returns
--   the units in use, the microseconds until they are free (0: none are), and until the cost fits;
--   the charge to write, whether it fits or not: the new state, the release after it, the state's life in milliseconds,
--   and what a refund needs (kind and edition, start, end).
local function weigh_calendar(_, value, _, _, now, limit, period, cost)
  local length, minute = period % 65536, math.floor(now / 60000000)
  local from = (period - length) / 65536
  local till = from + length
  if minute >= till then
    from, till = till, 0
  elseif minute < from then
    from, till = 0, from
  end
  local tag, used = 3, 0
  if value then
    local old_tag, old_from, old_till, old_used = struct.unpack('>BI4I4I4', value)
    local is_known = from * till * old_from * old_till > 0
    if from > 0 and from == old_from then
      tag, used, till = old_tag, old_used, till > 0 and till or old_till
    elseif till > 0 and till == old_till and not is_known then
      tag, used, from = old_tag, old_used, math.max(from, old_from)
    elseif ((from == 0 and old_till == 0) or (till == 0 and old_from == 0))
      and from + old_from < till + old_till and (till + old_till - from - old_from) * 2 < length * 3 then
      -- One knows the start and the other the end, and no second period fits between them.
      tag, used, from, till = old_tag, old_used, from + old_from, till + old_till
    elseif is_known and (math.min(till, old_till) - math.max(from, old_from)) * 2 > old_till - old_from then
      tag, used = (old_tag + 4) % 256, old_used
    elseif (old_from > 0 and old_from or old_till - 1) > (from > 0 and from or till - 1) then
      tag, from, till, used = old_tag, old_from, old_till, old_used
    else
      tag = (old_tag + 4) % 256
    end
  end
  local rest, keep = 1000000, length * 60000 + 86401000
  if till > 0 then
    rest = till * 60000000 - now
    keep = math.ceil(rest / 1000) + 1000
  end
  return used, used > 0 and rest or 0, used + cost > limit and rest or 0,
    struct.pack('>BI4I4I4', tag, from, till, used + cost), rest, keep, tag, from, till
end
