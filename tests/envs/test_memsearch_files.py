"""Files of LoCoMo and HotpotQA as they are: odd ones are read, broken ones refused."""

from __future__ import annotations

import json

import pytest

pytest.importorskip('nltk', reason="pip install -e '.[memsearch]'")

from envs import registry
from envs.memsearch import hotpot, locomo
from envs.memsearch.library import BadFile
from tests.envs import memory_files
from tests.envs.memory_files import paragraphs, talk, write


def test_the_oddities_of_locomo_are_read(tmp_path):
  memory, asked = locomo.load(write(tmp_path, 'l.json', [talk(7)]))[0]
  assert [page.id for page in memory.pages] == ['D1', 'D10']  # in the order of numbers
  assert memory.pages[0].title == '1:56 pm on 8 May, 2023'
  first, photo, later = memory.passages
  assert photo.text == 'Bob: [shares a photo: a red kite]' and later.id == 'D10:1'
  assert [q.kind for q in asked] == [
      'single-hop', 'temporal', 'multi-hop', 'open-domain', 'adversarial'
  ]
  assert [q.answers for q in asked] == [
      ('Rex 7',), ('2022',), ('rowing, kites',), ('Likely no',), ()
  ]
  assert [q.evidence for q in asked] == [
      ('D1:1',), ('D1:1',), ('D10:1',), (), ('D1:1',)
  ]
  assert [q.rule for q in asked] == ['locomo', 'locomo', 'parts', 'locomo', 'locomo']
  assert first.page == 'D1'


def test_one_sample_alone_and_one_a_line_are_read(tmp_path):
  lines = '\n'.join(json.dumps(talk(n)) for n in range(2))
  assert len(locomo.load(write(tmp_path, 'a.json', talk(0)))) == 1
  assert len(locomo.load(write(tmp_path, 'b.jsonl', lines))) == 2
  marked = '\ufeff' + json.dumps([talk(0)])
  assert len(locomo.load(write(tmp_path, 'c.json', marked))) == 1


def test_both_forms_of_hotpot_are_read_and_false_facts_passed_over(tmp_path):
  columns = paragraphs(
      1, id='hub', context={'title': ['Rex'], 'sentences': [['A dog.']]},
      supporting_facts={'title': ['Rex'], 'sent_id': [0]},
  )  # fmt: skip
  del columns['_id']
  path = write(tmp_path, 'h.json', [paragraphs(0), columns])
  (memory, [asked]), (other, [again]) = hotpot.load(path)
  assert [p.id for p in memory.passages] == ['P1:0', 'P1:2', 'P2:0']
  assert asked.evidence == ('P1:0',) and again.evidence == ('P1:0',)
  assert other.id == 'hotpot-hub' and asked.rule == 'hotpot'


QA = talk(0)['qa'][0]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"a": ', r'is no JSON \(line 1, column 7.*is the download complete'),
        ('version https://git-lfs.github.com/spec/v1\n', 'LFS pointer.*git lfs pull'),
        ('[]', 'no list of records'),
        ({'version': 1}, r"an object with \['version'\], not a list"),
        ([3], 'sample 0 is int, not an object'),
        ([{'qa': []}], "sample 0 has no 'conversation'"),
        ([talk(0, conversation={'session_1_date_time': 'x'})], 'no session_1'),
        ([talk(0, conversation={'session_1': [{'text': 'x'}]})],
         "session_1, turn 1 has no 'speaker'"),
        ([talk(0, qa={})], "'qa' is '{}', of the wrong type"),
        ([talk(0, qa=[{**QA, 'category': 9}])], "qa 0: category '9'; LoCoMo has 1"),
        ([talk(0, qa=[{**QA, 'question': ' '}])], 'qa 0: the question is empty'),
        ([talk(0, qa=[{**QA, 'answer': ''}])], 'qa 0: the answer is empty'),
        ([talk(0, qa=[{'question': 'q', 'category': 1}])], "qa 0 has no 'answer'"),
        ([talk(0), talk(0)], 'two samples have one sample_id'),
    ],
)  # fmt: skip
def test_a_broken_locomo_is_refused_in_one_line(tmp_path, content, message):
  path = write(tmp_path, 'locomo.json', content)
  with pytest.raises(BadFile, match=message) as raised:
    locomo.load(path)
  assert '\n' not in str(raised.value) and path in str(raised.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'answer': ''}, 'the answer is empty'),
        ({'answer': None}, "'answer' is 'None'"),
        ({'question': ''}, 'the question is empty'),
        ({'context': []}, "'context' has no sentence"),
        ({'context': ['Rex']}, "'Rex' is no pair"),
        ({'context': [['Rex', 'A dog.']]}, "sentences of 'Rex' are no list"),
        ({'context': {'title': ['Rex'], 'sentences': []}}, '1 of title, 0 of sent'),
    ],
)
def test_a_broken_hotpot_is_refused_in_one_line(tmp_path, changes, message):
  path = write(tmp_path, 'hotpot.json', [paragraphs(0, **changes)])
  with pytest.raises(BadFile, match=f'record 0.*{message}') as raised:
    hotpot.load(path)
  assert '\n' not in str(raised.value)


def test_the_test_file_without_answers_and_shared_ids_are_refused(tmp_path):
  record = paragraphs(0)
  del record['answer']
  with pytest.raises(BadFile, match='the public test file has none'):
    hotpot.load(write(tmp_path, 'h.json', [record]))
  with pytest.raises(BadFile, match='1 records share an _id'):
    hotpot.load(write(tmp_path, 'h.json', [paragraphs(0), paragraphs(0)]))


def test_no_file_a_directory_and_a_packed_file_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='set data_path to the JSON file'):
    locomo.load(str(tmp_path))
  packed = tmp_path / 'x.zip'
  packed.write_bytes(b'PK\x03\x04\xff\xfe')
  with pytest.raises(BadFile, match='unpack it first'):
    locomo.load(str(packed))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'source': 'squad'}, "unknown source 'squad'; choose from embedded"),
        ({'source': 'locomo'}, "source='locomo' needs data_path"),
        ({'data_path': 'F'}, "data_path='F' needs source='locomo' or 'hotpot'"),
        ({'source': 'hotpot', 'data_path': 'F', 'view': 'compact'}, "view 'compact'"),
        ({'source': 'hotpot', 'data_path': 'F', 'people': 3}, "option 'people'"),
        ({'budget': 0}, 'budget is 0; it must be at least 1'),
        ({'success_at': 0.0}, 'success_at is 0.0'),
        ({'people': 1}, 'people is 1; it must be between 2 and'),
        ({'kinds': ('why',)}, 'choose from now, first, friend, never'),
    ],
)
def test_a_bad_option_is_refused_by_name(options, message):
  with pytest.raises(ValueError, match=message):
    registry.make('memsearch', **options)


def test_a_split_that_leaves_no_test_is_refused_and_a_double_question_is_one(tmp_path):
  path = memory_files.locomo(tmp_path)
  with pytest.raises(ValueError, match='leave nothing of 3 memories for the test'):
    registry.make('memsearch', source='locomo', data_path=path, train_memories=2)
  twice = write(tmp_path, 't.json', [talk(0), talk(1), talk(2, qa=[QA, QA])])
  world = registry.make('memsearch', source='locomo', data_path=twice)
  assert len(world.tasks('test')) == 1
