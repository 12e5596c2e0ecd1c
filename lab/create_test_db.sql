-- The database of the listener's tests, for psql as a superuser on a cluster that has none of it yet.
-- One table a game and platform; pusher itself looks at the column token alone.

create role pusher_user with login superuser;
create database push with owner pusher_user encoding 'UTF8' template template0;

\connect push pusher_user

create extension "uuid-ossp";

create table testapp_apns (
    id uuid primary key default uuid_generate_v4(),
    user_id text not null,
    token text not null,
    region text not null,
    locale text not null,
    tz text not null
);

create table testapp_gcm (like testapp_apns including all);

-- 18 devices at Apple with tokens of 64 hexadecimal digits; the last two belong to one device that two users share
insert into testapp_apns (user_id, token, region, locale, tz)
select 'user-' || n,
       upper(encode(sha256(convert_to('apns-' || least(n, 17), 'UTF8')), 'hex')),
       (array['BR', 'US', 'DE'])[1 + n % 3],
       (array['pt', 'en', 'de'])[1 + n % 3],
       (array['-0300', '-0500', '+0100'])[1 + n % 3]
from generate_series(1, 18) as n;

-- 10 devices at Google with tokens of 152 characters
insert into testapp_gcm (user_id, token, region, locale, tz)
select 'user-' || n,
       rpad(upper(encode(sha512(convert_to('gcm-' || n, 'UTF8')), 'hex')), 152, 'X'),
       (array['BR', 'US', 'DE'])[1 + n % 3],
       (array['pt', 'en', 'de'])[1 + n % 3],
       (array['-0300', '-0500', '+0100'])[1 + n % 3]
from generate_series(1, 10) as n;
