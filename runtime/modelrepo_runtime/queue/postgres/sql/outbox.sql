-- name: outbox_take
-- What another sender is about to take is left to it at once.
update outbox set holder = ?1, taken_until = ?2 where id = (
  select id from outbox
  where id = ?3 and due <= ?4 and (holder is null or taken_until <= ?4 or taken_until > ?2) for update skip locked
) returning id;
