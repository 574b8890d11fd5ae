from tests.support.forwarding import OTHER_TOKEN, TOKEN
from tests.support.memory_link import link_pair
from tests.support.virtual_time import virtual_time

from tunnel_rs.forward.accounts import Account, Accounts, Client
from tunnel_rs.proto.access import Pass, of_tokens
from tunnel_rs.proto.grants import UNLIMITED, Grant

HELD = Pass(TOKEN, Grant(name="alice", max_sessions=2))


@virtual_time
async def test_who_shows_the_same_token_shares_an_account() -> None:
    accounts = Accounts()
    one, other = accounts.of(HELD), accounts.of(Pass(TOKEN, UNLIMITED))
    assert one is other
    assert accounts.of(Pass(OTHER_TOKEN, UNLIMITED)) is not one


@virtual_time
async def test_accounts_of_those_who_are_gone_from_the_list_are_forgotten() -> None:
    accounts = Accounts()
    kept = accounts.of(HELD)
    accounts.of(Pass(OTHER_TOKEN, UNLIMITED))
    accounts.keep(of_tokens(TOKEN))
    assert len(accounts) == 1
    assert accounts.of(HELD) is kept


@virtual_time
async def test_sessions_of_all_links_are_counted_together() -> None:
    account = Account(HELD.grant)
    clients = [Client(link_pair()[1], HELD, account) for _ in range(2)]
    assert clients[0].begin() and clients[1].begin()
    assert not clients[0].begin()
    clients[1].ended(10, 20)
    assert clients[0].begin()
    assert (clients[1].sent, clients[1].received) == (10, 20)
    assert clients[0].name == "alice"


@virtual_time
async def test_bandwidth_has_buckets_only_where_it_is_limited() -> None:
    account = Account(UNLIMITED)
    assert account.limits is None
    account.apply(Grant(bandwidth=100_000))
    limits = account.limits
    assert limits is not None
    account.apply(Grant(bandwidth=50_000))
    assert account.limits is limits, "sessions hold on to it"
    incoming = limits[1]
    assert incoming.spend(1_000_000, now=1000.0) > 19
    account.apply(UNLIMITED)
    assert account.limits is None
    assert incoming.spend(1_000_000, now=1000.1) == 0
