--[[
  Writes one charge: what weigh_window or weigh_bucket returned for it.

  Part of: charge_unbilled, decide_charges, peek_charges, refund_charges

  Put in where key, pages_at, state, life, gone, page and page_life are known.
]]
if gone and gone > 0 then
  redis.call('LTRIM', KEYS[pages_at], gone, -1)
end
if page then
  redis.call('RPUSH', KEYS[pages_at], page)
end
if page_life then
  redis.call('PEXPIRE', KEYS[pages_at], page_life)
end
if not life then
  redis.call('APPEND', key, state)
elseif life == 0 then
  redis.call('SET', key, state, 'KEEPTTL')
else
  redis.call('SET', key, state, 'PX', life)
end
