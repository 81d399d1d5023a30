"""openapi-python-client: from a list to a deletion."""

import os
import uuid
from http import HTTPStatus

from generated.python.atlas import AuthenticatedClient as Atlas
from generated.python.atlas.api.cities import create_city, delete_city, list_cities, post_query_cities, update_city
from generated.python.atlas.models import (
    City,
    CityCreate,
    CityFilter,
    CityList,
    CityPatch,
    CityQuery,
    CountryContinent,
    IntegerConditionType1,
    Problem,
    TextConditionType1,
)
from generated.python.shop import AuthenticatedClient as Shop
from generated.python.shop.api.products import create_product, delete_product, list_products, update_product
from generated.python.shop.models import Problem as ShopProblem
from generated.python.shop.models import Product, ProductCreate, ProductList, ProductPatch


def cities() -> None:
    client = Atlas(base_url=os.environ["ATLAS"], token=os.environ["ATLAS_TOKEN"])
    listed = list_cities.sync_detailed(client=client, name="Cairo", country_continent=CountryContinent.AF, limit=5)
    assert isinstance(listed.parsed, CityList)
    assert [city.name for city in listed.parsed.items] == ["Cairo"]

    # Its query strings cannot hold an operator of a filter (`deepObject`); its bodies can.
    condition = CityFilter(
        name=TextConditionType1(in_=["Cairo", "Lagos"]), population=IntegerConditionType1(gte=1_000_000)
    )
    queried = post_query_cities.sync_detailed(client=client, body=CityQuery(filter_=condition))
    assert isinstance(queried.parsed, CityList) and len(queried.parsed.items) == 2

    new = CityCreate(
        name="Erewhon",
        country_code="NZ",
        admin1_code="E9",
        latitude=-43.5,
        longitude=170.9,
        population=2,
        timezone="Pacific/Auckland",
    )
    created = create_city.sync_detailed(client=client, body=new)
    assert created.status_code == HTTPStatus.CREATED and isinstance(created.parsed, City)
    id, etag = created.parsed.id, created.headers["etag"]

    patched = update_city.sync_detailed(id, client=client, body=CityPatch(population=3), if_match=etag)
    assert isinstance(patched.parsed, City) and patched.parsed.population == 3
    late = update_city.sync_detailed(id, client=client, body=CityPatch(population=4), if_match=etag)
    assert late.status_code == HTTPStatus.PRECONDITION_FAILED and isinstance(late.parsed, Problem)
    wrong = update_city.sync_detailed(id, client=client, body=CityPatch(latitude=91.0))
    assert wrong.status_code == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(wrong.parsed, Problem)
    assert wrong.parsed.errors and wrong.parsed.errors[0].pointer == "/latitude"
    assert delete_city.sync_detailed(id, client=client).status_code == HTTPStatus.NO_CONTENT


def products() -> None:
    client = Shop(base_url=os.environ["SHOP"], token=os.environ["SHOP_TOKEN"])
    listed = list_products.sync_detailed(client=client, in_stock=True, limit=2)
    assert isinstance(listed.parsed, ProductList) and len(listed.parsed.items) == 2

    new = ProductCreate(name="Parachute", price_cents=4900, cost_cents=900, in_stock=True)
    created = create_product.sync_detailed(client=client, body=new, idempotency_key=str(uuid.uuid4()))
    assert created.status_code == HTTPStatus.CREATED and isinstance(created.parsed, Product)
    id, etag = created.parsed.id, created.headers["etag"]

    patched = update_product.sync_detailed(id, client=client, body=ProductPatch(price_cents=3900), if_match=etag)
    assert isinstance(patched.parsed, Product) and patched.parsed.price_cents == 3900
    late = update_product.sync_detailed(id, client=client, body=ProductPatch(price_cents=1), if_match=etag)
    assert late.status_code == HTTPStatus.PRECONDITION_FAILED
    wrong = update_product.sync_detailed(id, client=client, body=ProductPatch(price_cents=-1))
    assert wrong.status_code == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(wrong.parsed, ShopProblem)
    assert wrong.parsed.errors and wrong.parsed.errors[0].pointer == "/price_cents"
    deleted = delete_product.sync_detailed(id, client=client)
    assert isinstance(deleted.parsed, Product) and deleted.parsed.deleted_at


cities()
products()
print("openapi-python-client: the whole flow")
