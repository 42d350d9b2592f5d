# Training on the processor: every stage, the toy recipe and its data. Not built where this was written (no daemon there).
#
#   docker build -t tandem .
#   docker run --rm -v "$PWD/runs:/tandem/runs" tandem pipeline run_dir=runs/toy
#
# With an NVIDIA GPU, take the default build of torch instead, and pass --gpus all to docker run:
#   docker build -t tandem --build-arg TORCH_INDEX=https://pypi.org/simple .
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN torch="$(sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)" \
    && pip install --no-cache-dir --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple "$torch"
COPY alignment alignment
COPY annotation_ui annotation_ui
COPY stages stages
COPY configs configs
COPY data data
RUN pip install --no-cache-dir -c constraints.txt .

RUN useradd --create-home tandem && mkdir /tandem && chown tandem /tandem
USER tandem
WORKDIR /tandem
ENTRYPOINT ["tandem"]
CMD ["--help"]
