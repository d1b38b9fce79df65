# Two stages: the first installs the locked versions, the second carries only what runs.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /venv
COPY requirements.txt requirements-build.txt ./
RUN /venv/bin/pip install --require-hashes -r requirements.txt \
    && python -m venv /build \
    && /build/bin/pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /build/bin/pip wheel --no-build-isolation --no-deps -w /dist . \
    && /venv/bin/pip install --no-deps /dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home gateway
COPY --from=build /venv /venv
COPY deploy/health_check.py /
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 GATEWAY_HOST=0.0.0.0
USER gateway
EXPOSE 8080 9464
# GATEWAY_DATABASE_URL and GATEWAY_TOKEN_SECRET must be given; the image has no embedded PostgreSQL.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "/health_check.py"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["gateway"]
CMD ["serve"]
