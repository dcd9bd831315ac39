"""The custom resources as pydantic models; crds/*.yaml is generated from them."""
