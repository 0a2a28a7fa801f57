"""What a service may answer, and what a user is told."""

import gzip
import pathlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from absl import logging

from leafe_jax import inputs

ODD = ['a b', 'ä/ö ü', 'x%20y', "it's", 'plus+and&', '雪/o.txt', '.hidden', 'a=b,c;d@e']


@pytest.fixture(name='store')
def _store(url):
  from leafe_jax.buckets.store import Store

  return Store(url, patience_s=20)


def _error():
  from leafe_jax.buckets.store import BucketError

  return BucketError


@pytest.mark.parametrize(
    'url',
    [
        'gs://B/x', 'gs://bucket', 'gs://bucket/', 'gs:///x', 'gs://bucket/a#b',
        'gs://bucket/a?b', 'gs://bucket/a*', 'gs://bucket/a//b', 'gs://bucket/../a',
        'gs://bucket/a\nb', 'gs://no_/x',
    ],
)
def test_odd_urls_are_refused_in_one_line(url):
  from leafe_jax.buckets import store  # needs no library

  with pytest.raises(store.BucketError, match='name|give'):
    store.split(url)


@pytest.mark.parametrize('name', ODD)
def test_names_come_back_as_they_are(url, store, name):
  from leafe_jax.buckets.store import Store

  for place in (store, Store(f'{url}/{name}')):
    generation = place.write(name, b'text', 0)
    assert place.read(name) == (b'text', generation)
    assert list(place.list())[0] in (name, f'{name}/{name}')


def test_more_objects_than_a_page_are_listed(store):
  with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda i: store.write(f'many/{i:04}', b'x', 0), range(1010)))
  assert len(store.list('many')) == len(store.list()) == 1010


def test_an_object_is_replaced_only_as_it_was_seen(store):
  from leafe_jax.buckets.store import Conflict

  first = store.write('x', b'1', 0)
  second = store.write('x', b'2', first)
  for stale in (0, first):
    with pytest.raises(Conflict, match='replaced by another process'):
      store.write('x', b'3', stale)
  assert store.read('x') == (b'2', second)


@pytest.mark.parametrize('fault', [503, 429, 500, 'cut', 'lost'])
def test_a_service_that_is_busy_is_asked_again(store, line, fault, monkeypatch):
  said = []
  monkeypatch.setattr(logging, 'warning', lambda text, *of: said.append(text % of))
  before = store.write('x', b'old', 0)
  line.faults, line.only = [fault, fault], 'POST'
  store.write('x', b'new', before)
  assert store.read('x')[0] == b'new'
  assert len(said) == 1  # one line, however often
  assert store.url in said[0]
  assert 'tried again' in said[0]


def _refusing_to_renew(store, text, monkeypatch):
  """The server that renews credentials answers once with a text."""
  from google.auth import exceptions

  ask, told = store._bucket.client.list_blobs, []

  def once(*args, **kwargs):
    if told:
      return ask(*args, **kwargs)
    told.append(text)
    raise exceptions.RefreshError(text) from exceptions.TransportError(text)

  monkeypatch.setattr(store._bucket.client, 'list_blobs', once)


def test_credentials_that_cannot_be_renewed_now_are_asked_for_again(store, monkeypatch):
  store.write('x', b'1', 0)
  _refusing_to_renew(store, 'from the metadata service. Status: 503', monkeypatch)
  assert set(store.list()) == {'x'}


def test_credentials_that_are_refused_are_not(store, monkeypatch):
  _refusing_to_renew(store, 'from the metadata service. Status: 404', monkeypatch)
  with pytest.raises(_error(), match='no valid credentials.*Status: 404'):
    store.list()


def test_a_bucket_that_keeps_what_it_has_is_named(store, monkeypatch):
  from google.api_core import exceptions

  def refuse(*_, **__):
    raise exceptions.Forbidden("Object 'x' is subject to bucket's retention policy")

  monkeypatch.setattr(store._bucket.client, 'list_blobs', refuse)
  with pytest.raises(_error(), match='take one without a retention policy'):
    store.list()


def test_a_service_that_stays_away_is_given_up(url, line):
  from leafe_jax.buckets.store import Store

  line.faults = ['cut'] * 100
  with pytest.raises(_error(), match='for 1 s.*start the same command again') as error:
    Store(url, patience_s=1).list()
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('status', 'message'),
    [
        (403, 'no permission to list it.*roles/storage.objectUser'),
        (401, 'no valid credentials.*gcloud auth'),
        (404, 'there is no bucket.*buckets create'),
        (400, 'cannot list it'),
    ],
)
def test_a_refusal_names_the_url_and_the_remedy(store, line, status, message):
  line.faults = [status] * 3
  with pytest.raises(_error(), match=message) as error:
    store.list()
  assert str(error.value).startswith(store.url)
  assert '\n' not in str(error.value)


@pytest.mark.usefixtures('url')
def test_a_bucket_that_is_not_there_is_named():
  from leafe_jax.buckets.store import Store

  with pytest.raises(_error(), match='there is no bucket no-such-bucket'):
    Store('gs://no-such-bucket/run').list()


def test_files_are_whole_or_not_there(store, tmp_path):
  from leafe_jax.buckets.store import Conflict, entry_of, measure

  path = tmp_path / 'file'
  path.write_bytes(b'0123456789' * 2_000_000)  # more than one request
  entry = measure(path)
  store.upload('big', path, entry, 0)
  assert store.find('big').entry == entry
  store.download('big', tmp_path / 'a' / 'again', entry)
  assert measure(tmp_path / 'a' / 'again') == entry
  with pytest.raises(Conflict, match='not as it was written'):
    store.download('big', tmp_path / 'b', entry_of(b'other'))
  assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ['file']


def test_folders_that_a_console_made_are_no_files(url, store):
  store._blob('data/').upload_from_string(b'')
  store._blob('data/empty/').upload_from_string(b'')
  store.write('data/a.jsonl', b'1', 0)
  copy = pathlib.Path(inputs.local(f'{url}/data'))
  assert [path.name for path in copy.rglob('*')] == ['a.jsonl']
  assert set(store.list()) == {'data/a.jsonl'}


def test_a_file_that_was_uploaded_compressed_is_read_as_it_was(url, store):
  """As "gcloud storage cp --gzip-local-all" does it."""
  blob = store._blob('data/a.jsonl')
  blob.content_encoding = 'gzip'
  blob.upload_from_string(gzip.compress(b'{"a": 1}\n'))
  store.write('data/b.jsonl.gz', gzip.compress(b'b'), 0)  # its own form
  copy = pathlib.Path(inputs.local(f'{url}/data'))
  assert (copy / 'a.jsonl').read_bytes() == b'{"a": 1}\n'
  assert gzip.decompress((copy / 'b.jsonl.gz').read_bytes()) == b'b'


def test_files_of_others_are_read_through_a_copy(url, store, line):
  store.write('data/a.jsonl', b'1\n', 0)
  generation = store.write('one.jsonl', b'2\n', 0)
  copy = inputs.local(f'{url}/data')
  assert pathlib.Path(copy, 'a.jsonl').read_bytes() == b'1\n'
  alone = inputs.local(f'{url}/one.jsonl')
  assert alone.endswith('/one.jsonl')
  assert pathlib.Path(alone).read_bytes() == b'2\n'
  assert inputs.local_options({'data_dir': f'{url}/data', 'page_size': 4}) == {
      'data_dir': copy, 'page_size': 4,
  }  # fmt: skip
  assert inputs.local('some/path') == 'some/path'

  inputs.fetch.cache_clear()
  line.seen.clear()
  assert inputs.local(f'{url}/one.jsonl') == alone  # nothing is fetched again
  assert not [path for _, path in line.seen if 'alt=media' in path]
  store.write('one.jsonl', b'3\n', generation)
  inputs.fetch.cache_clear()
  assert inputs.local(f'{url}/one.jsonl') != alone
  with pytest.raises(_error(), match='nothing is there'):
    inputs.local(f'{url}/two.jsonl')
