# The book's notebooks in JupyterLab, on any machine with Docker:
#   docker build -t clbook . && docker run --rm -p 8888:8888 clbook
FROM python:3.11-slim
RUN useradd --create-home reader
WORKDIR /home/reader/clbook
COPY --chown=reader . .
RUN pip install --no-cache-dir -e . jupyterlab ipywidgets
USER reader
ENV CLBOOK_PRESET=quick
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks"]
