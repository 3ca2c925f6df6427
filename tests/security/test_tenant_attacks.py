"""Each attack of a tenant on the others fails as things are, and succeeds without its protection."""

from tests.security.attack_form import AttackTests
from tests.security.tenant_attacks import TENANT_ATTACKS


class TestTenantAttacks(AttackTests):
    """The attacks of one tenant, or of a stranger, on the others."""

    attacks = TENANT_ATTACKS
