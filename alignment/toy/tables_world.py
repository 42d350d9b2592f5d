"""Facts about countries, animals, colours, opposites and units, as plain tables.

One fact or one entity a line, columns separated by ``|``. Each column's meaning stands above its table;
``alignment.toy.facts`` turns the lines into ``Fact`` records.
"""

from __future__ import annotations

COUNTRIES = """
France|Paris|the Eiffel Tower|French|bonjour|Europe|Spain
Germany|Berlin|its old city gate|German|hallo|Europe|Poland
Italy|Rome|its ancient arena|Italian|ciao|Europe|Austria
Spain|Madrid|its large art museums|Spanish|hola|Europe|Portugal
Portugal|Lisbon|its yellow trams|Portuguese|ola|Europe|Spain
Greece|Athens|its ancient temples|Greek|yassou|Europe|Bulgaria
Poland|Warsaw|its royal castle|Polish|czesc|Europe|Germany
Sweden|Stockholm|its many islands|Swedish|hej|Europe|Norway
Norway|Oslo|its ship museums|Norwegian|hei|Europe|Sweden
Denmark|Copenhagen|its mermaid statue|Danish|hej|Europe|Germany
Finland|Helsinki|its white cathedral|Finnish|moi|Europe|Sweden
Hungary|Budapest|its warm baths|Hungarian|szia|Europe|Austria
Austria|Vienna|its music and cakes|German|hallo|Europe|Hungary
the Netherlands|Amsterdam|its canals and bikes|Dutch|hallo|Europe|Germany
Egypt|Cairo|the great pyramids nearby|Arabic|marhaba|Africa|Sudan
Kenya|Nairobi|its park with wild animals|Swahili|jambo|Africa|Uganda
Japan|Tokyo|its busy streets|Japanese|konnichiwa|Asia|
China|Beijing|its old palace|Chinese|ni hao|Asia|India
India|New Delhi|its tall stone gate|Hindi|namaste|Asia|China
Thailand|Bangkok|its golden temples|Thai|sawasdee|Asia|Laos
Vietnam|Hanoi|its quiet lakes|Vietnamese|xin chao|Asia|China
Brazil|Brasilia|its modern buildings|Portuguese|ola|South America|Peru
Mexico|Mexico City|its huge main square|Spanish|hola|North America|Guatemala
Peru|Lima|its fresh fish dishes|Spanish|hola|South America|Brazil
Cuba|Havana|its colourful old cars|Spanish|hola|North America|
"""
"""Country, capital, its sight, language, hello, continent, neighbour (empty: an island)."""

FOODS = """
a cow|grass|It chews its food twice.
a horse|hay|It also likes apples as a treat.
a sheep|grass and herbs|It bites the grass very short.
a pig|corn and roots|It finds roots with its nose.
a dog|meat|It also chews on bones.
a cat|mice and fish|It hunts mostly at night.
a bear|berries and fish|It eats a lot before winter.
a lion|meat|It hunts together with its group.
a frog|insects|It catches them with a long tongue.
a duck|water plants|It puts its head under the water.
a hen|grain and seeds|It looks for them on the ground.
an owl|mice|It swallows them whole.
a rabbit|grass and carrots|Its teeth never stop growing.
a bee|nectar|It makes honey from it.
a panda|bamboo|It eats for twelve hours a day.
an elephant|leaves and bark|It picks them with its trunk.
a penguin|fish|It dives deep to catch them.
a kangaroo|grass and leaves|It needs very little water.
a whale|tiny sea animals|It filters them from the water.
a monkey|fruit and nuts|It opens nuts with a stone.
"""
"""Animal, what it eats, detail."""

HOMES = """
a cow|on a farm|It stands in a barn at night.
a horse|in a stable|Clean straw keeps the stable dry.
a sheep|in a meadow|A dog often guards the group there.
a pig|in a pen|It likes to roll in the mud there.
a dog|with people|It likes its own warm basket.
a cat|in a house|It likes a warm place near the window.
a bear|in a forest|It sleeps in a cave all winter.
a lion|on the grassland|It rests in the shade of a tree.
a frog|near a pond|Its skin must stay wet.
a duck|on a lake|It builds its nest in tall grass.
a hen|in a coop|The coop keeps the fox out at night.
an owl|in a hollow tree|It leaves its tree only at night.
a rabbit|in a burrow|The burrow has several doors.
a bee|in a hive|Thousands of bees share one hive.
a panda|in mountain forests|These forests are cool and wet.
an elephant|in a herd|The oldest mother leads the herd.
a penguin|on icy coasts|It stands close to others to keep warm.
a kangaroo|in Australia|It rests in the shade at noon.
a whale|in the ocean|It comes up to breathe air.
a monkey|in the jungle|It jumps from tree to tree.
"""
"""Animal, where it lives, detail."""

YOUNG = """
a cow|a calf|It drinks milk from its mother.
a horse|a foal|It can stand up soon after birth.
a sheep|a lamb|It is born in spring.
a pig|a piglet|It has many brothers and sisters.
a dog|a puppy|It sleeps most of the day.
a cat|a kitten|It is blind for its first days.
a bear|a cub|It stays with its mother for two years.
a lion|a lion cub|It has spots when it is small.
a frog|a tadpole|It has a tail and no legs at first.
a duck|a duckling|It can swim on its first day.
a hen|a chick|It is yellow and soft.
an owl|an owlet|It is covered with white feathers.
a rabbit|a kit|It is born without fur.
a bee|a larva|It looks like a small white worm.
a panda|a panda cub|It is as small as a mouse at birth.
an elephant|an elephant calf|It learns to use its trunk slowly.
a penguin|a penguin chick|It sits on the feet of its father.
a kangaroo|a joey|It grows up in a pouch.
a whale|a whale calf|It is as long as a car at birth.
a monkey|a baby monkey|It holds on to the back of its mother.
"""
"""Animal, what its young is called, detail."""

COLOURS = """
a banana|yellow|It is green before it is ripe.
the sky|blue|It turns red in the evening.
grass|green|It turns brown when it gets too dry.
snow|white|It looks grey when it melts on the street.
blood|red|It carries oxygen through the body.
coal|black|It was once made from old plants.
a carrot|orange|It is said to be good for the eyes.
a lemon|yellow|It tastes very sour.
an elephant|grey|Its skin is thick and dry.
chocolate|brown|It is made from cocoa beans.
a ripe tomato|red|It is green when it is young.
a flamingo|pink|The colour comes from its food.
a plum|purple|It has a hard stone inside.
milk|white|It comes from cows and goats.
an emerald|green|It is a stone used for rings.
gold|yellow|It never rusts.
a polar bear|white|Its skin under the fur is black.
a raven|black|It is one of the smartest birds.
a peach|orange|Its skin feels soft.
a strawberry|red|Its seeds sit on the outside.
"""
"""Thing, colour, detail."""

OPPOSITES = """
hot|cold|Fire is hot and ice is cold.
big|small|An elephant is big and a mouse is small.
fast|slow|A car is fast and a snail is slow.
happy|sad|People laugh when happy and cry when sad.
light|heavy|A feather is light and a stone is heavy.
old|young|A grandmother is old and a baby is young.
full|empty|A full cup has no room and an empty cup has nothing.
wet|dry|Rain makes you wet and a towel makes you dry.
early|late|The morning is early and midnight is late.
hard|soft|A stone is hard and a pillow is soft.
loud|quiet|A drum is loud and a library is quiet.
rich|poor|A rich person has more money than a poor one.
long|short|A river is long and a pencil is short.
high|low|A tower is high and a table is low.
clean|dirty|Soap makes dirty hands clean.
strong|weak|A bear is strong and a leaf is weak.
open|closed|A shop is open by day and closed at night.
near|far|The door is near and the moon is far.
sweet|sour|Honey is sweet and a lemon is sour.
day|night|The sun shines by day and the moon at night.
deep|shallow|The ocean is deep and a puddle is shallow.
thick|thin|A wall is thick and paper is thin.
brave|afraid|A brave person acts even when afraid.
bright|dark|A lamp is bright and a cave is dark.
"""
"""Word, its opposite, an example as detail."""

UNITS = """
a minute|60 seconds|You can boil a soft egg in about five minutes.
an hour|60 minutes|Half of it is 30 minutes.
a day|24 hours|It starts and ends at midnight.
a week|7 days|It begins on Monday in many places.
a year|12 months|It has four seasons.
a decade|10 years|A child grows up in about two of them.
a century|100 years|Few people live that long.
a dozen|12 pieces|Eggs are often sold this way.
a kilometre|1000 metres|It takes about twelve minutes to walk that far.
a metre|100 centimetres|A big step is about that long.
a kilogram|1000 grams|A bag of flour often weighs that much.
a litre|1000 millilitres|A large milk bottle holds that much.
a pair|2 pieces|Shoes and socks are sold this way.
a leap year|366 days|It has one extra day in February.
a season|3 months|Summer is the warm one.
a fortnight|14 days|Many people take a holiday that long.
"""
"""Unit, what it equals, detail."""
