# A small CPU image with both commands, installed from the wheel.
#
#   docker build -t codecmeta .
#   docker run --rm -v "$PWD/data:/data:ro" -v "$PWD/meta:/meta" codecmeta extract /data --out /meta
#   docker run --rm -v "$PWD/meta:/meta:ro" -v "$PWD/tokens:/tokens" --entrypoint compress codecmeta run --meta /meta --out /tokens
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12-slim
# extras: "" for codecmeta without torch, "[compress]", "[compress,hf,plot]"
ARG EXTRAS=[compress,plot]
# torch from the index of CPU builds; the default index carries CUDA
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=build /dist /dist
RUN wheel=$(echo /dist/codecmeta-*.whl) \
    && python -m pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" "$wheel$EXTRAS" \
    && rm -rf /dist
# kernels for all processors with AVX2, compiled here; on another processor, run with both variables empty
ENV NUMBA_CACHE_DIR=/var/cache/codecmeta NUMBA_CPU_NAME=x86-64-v3 NUMBA_CPU_FEATURES=+avx2 PYTHONUNBUFFERED=1
RUN codecmeta warmup --cpu x86-64-v3 --cache "$NUMBA_CACHE_DIR" \
    && chmod -R a+rwX "$NUMBA_CACHE_DIR" \
    && useradd --create-home codec
USER codec
WORKDIR /home/codec
ENTRYPOINT ["codecmeta"]
CMD ["--help"]
