import pytest

from strop.core import registry
from strop.core.contracts import Effort
from strop.core.errors import UnknownNameError

REGISTRIES = [registry.passes, registry.runtimes, registry.metrics]
PACKAGES = ["strop.passes", "strop.runtimes", "strop.metrics"]


@pytest.mark.parametrize(("found", "package"), list(zip(REGISTRIES, PACKAGES, strict=True)))
def test_each_plug_in_is_found_under_its_modules_name(found, package):
    assert found.names() == tuple(sorted(found.names()))
    for name in found.names():
        assert found.get(name).name == name
        assert found.get(name).__module__ == f"{package}.{name}"


@pytest.mark.parametrize("found", REGISTRIES, ids=lambda r: r.kind)
def test_the_defaults_of_each_plug_in_are_allowed_and_so_is_what_a_search_tries(found):
    known = {"cores": 4, "batch": 8, "safe_weight_bits": 7}
    for plug_in in found:
        for settings in plug_in.variants(known, Effort.THOROUGH):
            assert plug_in.mistakes(settings) == []


def test_a_name_that_nobody_has_offers_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'convert\.litert'\?") as caught:
        registry.passes.get("convert.liteert")
    assert caught.value.known == registry.passes.names()
